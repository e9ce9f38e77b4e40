"""Packed checkpoints, checkpoints of others, and exported folders that somebody has been at."""

import json
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.quant import AffineGrid, DynamicGrid, QuantModel, SplitGrid, StepGrid, WeightRanges, set_weight_grids
from qbench.quant.packing import checksum, load_input_grids, load_weights, save_input_grids, save_weights
from qbench.workloads.checkpoint_file import read_checkpoint

Fuzz = Callable[..., Counter[str]]
Law = Callable[..., str]
DTYPES = (torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.float64, torch.bool)


def model() -> QuantModel:
    module = nn.Sequential(nn.Conv2d(5, 4, 3), nn.GroupNorm(1, 4), nn.Linear(6, 3, bias=False))
    return QuantModel(
        module.requires_grad_(False), Structure(boundary_layers=("0", "2"), splits={"0": 2}), BitWidth(4, 8)
    )


@pytest.fixture(params=["weights", "input grids"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path], None]]:
    """A file of either kind, and what reads it into a model of its own."""
    torch.manual_seed(0)
    full, path = model(), tmp_path / "file.safetensors"
    if request.param == "weights":
        set_weight_grids(full, WeightRanges(), split=True)
        save_weights(full, path)
        return path, lambda path: load_weights(model(), path)
    four = AffineGrid(4, torch.tensor(0.1), torch.tensor(3.0))
    steps = StepGrid(8, torch.tensor([0.1, 0.2]), torch.tensor([3.0, 200.0]))
    for name, grid in zip(full.taps, [SplitGrid(2, four, four), steps, DynamicGrid(8, 1)], strict=False):
        full.taps[name].grid = grid
    save_input_grids(full, path)
    return path, lambda path: load_input_grids(model(), path)


def with_header(content: bytes, header: str) -> bytes:
    """Return a safetensors file with another header."""
    (length,) = struct.unpack("<Q", content[:8])
    encoded = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]


def header_of(content: bytes) -> Any:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def test_the_bytes_of_a_packed_checkpoint(fuzz: Fuzz, read: Law, packed: Any, hostile: Any):
    path, reader = packed
    content = path.read_bytes()
    reader(path)

    def prepare(edits: Any) -> Callable[[], str]:
        path.write_bytes(hostile.edited_bytes(content, edits))
        return partial(read, reader, path, names=str(path))

    assert fuzz(prepare, hostile.byte_edits, 40, 800)["refused"]


def test_the_header_of_a_packed_checkpoint(fuzz: Fuzz, read: Law, packed: Any, hostile: Any):
    path, reader = packed
    content = path.read_bytes()
    reader(path)

    def prepare(edits: Any) -> Callable[[], str]:
        header = hostile.nested(json.dumps(hostile.edited(header_of(content), edits)))
        path.write_bytes(with_header(content, header))
        return partial(read, reader, path, names=str(path))

    assert fuzz(prepare, hostile.edits, 40, 600)["refused"]


def test_what_a_packed_checkpoint_says_and_vouches_for(fuzz: Fuzz, read: Law, packed: Any, hostile: Any):
    """The checksum fits what was altered, so it is not the checksum that finds it out."""
    path, reader = packed
    content = path.read_bytes()
    said, tensors = json.loads(header_of(content)["__metadata__"]["qbench"]), load_file(path)
    reader(path)
    changes = st.lists(
        st.tuples(
            st.integers(0, len(tensors)),
            st.sampled_from(["drop", "type", "shape", "value", "empty"]),
            st.integers(0, 99),
            st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30, 255.0]),
        ),
        max_size=2,
    )

    def prepare(example: Any) -> Callable[[], str]:
        edits, altering = example
        found, grids = dict(tensors), hostile.edited(said["grids"], edits)
        for number, kind, choice, value in altering:
            name = sorted(tensors)[number % len(tensors)]
            if name not in found:
                continue
            if kind == "drop":
                del found[name]
            elif kind == "type":
                found[name] = found[name].to(DTYPES[choice % len(DTYPES)])
            elif kind == "shape":
                found[name] = found[name].reshape(-1, *[1] * (choice % 4))[: choice % 5].clone()
            elif kind == "value":
                found[name] = torch.full_like(found[name].double(), value).to(found[name].dtype)
            else:
                found[name] = torch.zeros(0, dtype=found[name].dtype)
        try:
            vouched = checksum(grids, found)
        except (TypeError, ValueError):
            vouched = ""
        header = json.dumps({"format": said["format"], "grids": grids, "checksum": vouched})
        save_file(
            {name: each.contiguous() for name, each in found.items()}, path, {"qbench": header.replace("\ud800", "")}
        )
        return partial(read, reader, path, names=str(path))

    counts = fuzz(prepare, st.tuples(st.one_of(st.just([]), hostile.edits), changes), 60, 800)
    assert counts["works"]
    assert counts["refused"]


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_the_bytes_of_a_checkpoint_of_others(fuzz: Fuzz, read: Law, tmp_path: Path, hostile: Any, suffix: str):
    path = tmp_path / f"model{suffix}"
    tensors = {"a.weight": torch.ones(3, 2), "b": torch.zeros(5)}
    torch.save({"state_dict": tensors, "epoch": 3}, path) if suffix == ".ckpt" else save_file(tensors, path)
    content = path.read_bytes()
    assert read_checkpoint(path).keys() == tensors.keys()

    def prepare(edits: Any) -> Callable[[], str]:
        path.write_bytes(hostile.edited_bytes(content, edits))
        return partial(read, read_checkpoint, path, names=str(path))

    assert fuzz(prepare, hostile.byte_edits, 40, 400)["refused"]


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest cell that can be exported, exported."""
    from typer.testing import CliRunner

    from qbench.cli.main import app

    home = tmp_path_factory.mktemp("exported-once")
    suite = {
        "name": "small",
        "workloads": ["tiny-ddim"],
        "methods": [{"name": "linear", "settings": {"calibration": {"steps": 2, "per_step": 2}}}],
        "bits": ["W4A8"],
        "metrics": ["mse-to-fp"],
        "samples": 2,
        "steps": 2,
    }
    (home / "small.yaml").write_text(yaml.safe_dump(suite))
    places = [f"--{each}={home / each}" for each in ("results", "store")]
    more = ["--suite", str(home / "small.yaml"), "--to", str(home / "cell")]
    for words in (["run", str(home / "small.yaml")], ["export", "small/tiny-ddim.linear.W4A8.s0", *more]):
        done = CliRunner().invoke(app, [*words, *places])
        assert done.exit_code == 0, done.output
    return home / "cell"


def loading(folder: Path, read: Law) -> Callable[[], str]:
    from diffusers.utils.logging import set_verbosity_error

    from qbench.export.load import load_quantized

    set_verbosity_error()  # it writes to the standard error of when it was imported, which may be closed by now
    return partial(read, load_quantized, folder, "cpu", names=str(folder))


@pytest.mark.slow
def test_an_exported_folder_with_an_altered_file(
    fuzz: Fuzz, read: Law, exported_once: Path, tmp_path: Path, hostile: Any
):
    folder = tmp_path / "cell"
    shutil.copytree(exported_once, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    originals = {path: path.read_bytes() for path in files}
    assert loading(folder, read)() == "works"

    def prepare(example: Any) -> Callable[[], str]:
        number, edits = example
        for path, content in originals.items():
            path.write_bytes(content)
        path = files[number % len(files)]
        path.write_bytes(hostile.edited_bytes(originals[path], edits))
        return loading(folder, read)

    assert fuzz(prepare, st.tuples(st.integers(0, 50), hostile.byte_edits), 15, 40)["refused"]


@pytest.mark.slow
def test_an_exported_folder_that_vouches_for_what_was_altered(
    fuzz: Fuzz, read: Law, exported_once: Path, tmp_path: Path, hostile: Any
):
    from qbench.export.schema import FILE
    from qbench.identity import digest, file_digest

    folder = tmp_path / "cell"
    shutil.copytree(exported_once, folder)
    said = json.loads((folder / FILE).read_text())
    config = folder / "unet" / "config.json"
    plain = json.loads(config.read_text())

    def prepare(example: Any) -> Callable[[], str]:
        of_config, edits = example
        config.write_text(hostile.nested(json.dumps(hostile.edited(plain, edits if of_config else []))))
        content = json.loads(json.dumps(said))
        content["files"]["unet/config.json"] = file_digest(config)
        content = hostile.edited(content, [] if of_config else edits)
        if isinstance(content, dict):
            content.pop("checksum", None)
            try:
                content["checksum"] = digest(content)
            except (TypeError, ValueError):
                content["checksum"] = ""
        (folder / FILE).write_text(hostile.nested(json.dumps(content)))
        return loading(folder, read)

    assert prepare((False, []))() == "works"
    assert fuzz(prepare, st.tuples(st.booleans(), hostile.edits), 25, 60)["refused"]
