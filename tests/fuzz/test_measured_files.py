"""Images, statistics and configurations of models that are not what their names say."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from qbench.metrics.statistics_file import read_all_statistics
from qbench.score_request import open_images, open_reference

Fuzz = Callable[..., Counter[str]]
Law = Callable[..., str]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)


def statistics(path: Path) -> Path:
    mean, covariance = np.full(4, 0.5), np.eye(4)
    if path.suffix == ".npz":
        np.savez(path, mu=mean, sigma=covariance)
    else:
        save_file({"pooled.mean": mean, "pooled.cov": covariance}, path)
    return path


def images(path: Path) -> Path:
    if path.suffix == ".npy":
        np.save(path, PIXELS)
    elif "compressed" in path.name:
        np.savez_compressed(path, PIXELS)
    else:
        np.savez(path, PIXELS)
    return path


def all_pixels(path: Path) -> None:
    found = open_images(path).images
    found.read(range(found.count))


def reference(path: Path) -> None:
    opened = open_reference(path)
    opened.holds_statistics("pooled")
    read_all_statistics(path, ["pooled", "spatial"])


FILES = {
    "statistics.npz": (statistics, reference),
    "statistics.safetensors": (statistics, reference),
    "images.npy": (images, all_pixels),
    "images.npz": (images, all_pixels),
    "compressed.npz": (images, all_pixels),
}


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_of_a_file(fuzz: Fuzz, read: Law, tmp_path: Path, hostile: Any, name: str):
    write, reader = FILES[name]
    path = write(tmp_path / name)
    content = path.read_bytes()
    reader(path)

    def prepare(edits: Any) -> Callable[[], str]:
        path.unlink()  # what is mapped from it stays as it was
        path.write_bytes(hostile.edited_bytes(content, edits))
        return partial(read, reader, path, names=str(path))

    assert fuzz(prepare, hostile.byte_edits, 40, 400)["refused"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_the_bytes_of_an_image(fuzz: Fuzz, read: Law, tmp_path: Path, hostile: Any, suffix: str):
    folder = tmp_path / "images"
    folder.mkdir()
    for place, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{place}.{suffix}")
    path = folder / f"1.{suffix}"
    content = path.read_bytes()
    all_pixels(folder)

    def prepare(edits: Any) -> Callable[[], str]:
        path.write_bytes(hostile.edited_bytes(content, edits))
        return partial(read, all_pixels, folder, names=str(folder))

    assert fuzz(prepare, hostile.byte_edits, 25, 250)["refused"]


@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json"])
def test_the_configuration_of_a_model(
    fuzz: Fuzz, keeps_the_law: Law, workplace: Path, nothing_beside: None, hostile: Any, name: str
):
    import torch
    import yaml
    from diffusers import DDIMScheduler, UNet2DModel
    from diffusers.utils.logging import set_verbosity_error

    set_verbosity_error()  # it writes to the standard error of when it was imported, which may be closed by now
    folder = workplace / "model"
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    sizes = {"sample_size": 8, "block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2}
    UNet2DModel(**blocks, **sizes, attention_head_dim=4).save_pretrained(folder)
    DDIMScheduler().save_pretrained(folder)
    suite = {
        "name": "own",
        "workloads": [{"name": "own", "pipeline": "./model", "sampler": {"name": "ddim", "steps": 2}}],
        "methods": ["linear"],
        "bits": ["W4A8"],
        "metrics": ["mse-to-fp"],
        "samples": 2,
    }
    (workplace / "own.yaml").write_text(yaml.safe_dump(suite))
    original = json.loads((folder / name).read_text())
    assert keeps_the_law("plan", "own.yaml") == "works"

    def prepare(edits: Any) -> Callable[[], str]:
        (folder / name).write_text(hostile.nested(json.dumps(hostile.edited(original, edits))))
        shutil.rmtree(workplace / "store", ignore_errors=True)
        return partial(keeps_the_law, "plan", "own.yaml")

    assert fuzz(prepare, hostile.edits, 6, 40, workplace / "store", workplace / "downloads")["refused"]


def test_captions(
    fuzz: Fuzz, keeps_the_law: Law, workplace: Path, nothing_beside: None, monkeypatch: pytest.MonkeyPatch
):
    (workplace / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(workplace / "temporary"))
    (workplace / "images").mkdir()
    for place, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(workplace / "images" / f"{place}.png")
    words = ("score", "images", "--metrics", "micro-contrast", "--captions", "captions.txt")

    def prepare(content: bytes) -> Callable[[], str]:
        (workplace / "captions.txt").write_bytes(content)
        return partial(keeps_the_law, *words)

    texts = st.one_of(st.binary(max_size=30), st.just(b"a\nb\nc"), st.text(max_size=9).map(lambda each: each.encode()))
    assert fuzz(prepare, texts, 10, 60, workplace / "temporary")["refused"]
    assert list((workplace / "temporary").iterdir()) == []
