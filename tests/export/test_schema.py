"""Folders that are not what was written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import DataError
from qbench.export.schema import ExportInfo, read_info
from qbench.identity import digest


def alter(folder: Path, change: Callable[[dict[str, Any]], None], vouch: bool = True) -> None:
    """Change qbench.json, by default with a checksum that fits, as somebody with intent would."""
    path = folder / "qbench.json"
    content = json.loads(path.read_text())
    change(content)
    if vouch:
        said = {key: value for key, value in content.items() if key != "checksum"}
        content["checksum"] = digest(said)
    path.write_text(json.dumps(content))


def test_what_was_written_is_read(own_copy: Path) -> None:
    info = read_info(own_copy)
    assert (info.cell.workload, info.cell.bits, info.cell.boundary_bits, info.cell.samples) == (
        "tiny-ldm-kl",
        "W4A8",
        8,
        3,
    )
    assert (info.sampler.name, info.sampler.steps, info.schedule.betas) == ("ddim", 2, "scaled_linear")
    assert (info.latent_shape, info.image_shape, info.codec.kind) == ((4, 8, 8), (1, 32, 32), "first-stage")
    assert info.figures["mse-to-fp"].value > 0


def test_no_exported_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_info(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no folder of `qbench export`: it holds no qbench\.json"):
        read_info(tmp_path)
    (tmp_path / "qbench.json").write_text('{"revision": 1, "heads": 8}')  # a converted checkpoint's
    with pytest.raises(DataError, match="was not written by `qbench export`"):
        read_info(tmp_path)
    (tmp_path / "qbench.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_info(tmp_path)


@pytest.mark.parametrize("name", sorted(["unet/weights.safetensors", "vae/config.json", "model_index.json"]))
def test_one_altered_byte_is_refused(name: str, own_copy: Path) -> None:
    content = bytearray((own_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (own_copy / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged or was altered: export the cell again"):
        read_info(own_copy)


def test_an_altered_setting_is_refused(own_copy: Path) -> None:
    alter(own_copy, lambda content: content["sampler"].update(steps=3), vouch=False)
    with pytest.raises(DataError, match=r"qbench\.json is damaged or was altered"):
        read_info(own_copy)
    text = (own_copy / "qbench.json").read_text()
    (own_copy / "qbench.json").write_text(text.replace('"eta": 0.0', '"eta": NaN'))
    with pytest.raises(DataError, match=r"qbench\.json is damaged or was altered"):
        read_info(own_copy)


def test_another_version_is_refused(own_copy: Path) -> None:
    alter(own_copy, lambda content: content.update(schema_version=2))
    with pytest.raises(DataError, match="is of version 2, and this qbench reads 1"):
        read_info(own_copy)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.json",
        "unet/../../outside.json",
        "/etc/passwd",
        "unet/sub/weights.safetensors",
        "unet\\weights.safetensors",
        "unet/.hidden.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/weights.pt",
        "weights.safetensors",
        "unet/config.json\n",
        "",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str, own_copy: Path) -> None:
    (own_copy.parent / "outside.json").write_text("{}")
    alter(own_copy, lambda content: content["files"].update({name: "0" * 64}))
    with pytest.raises(DataError, match="is no file of an exported folder"):
        read_info(own_copy)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content.pop("sampler"), "'sampler' is missing"),
        (lambda content: content["sampler"].update(name="dim"), r"qbench\.json \(sampler\.name\)"),
        (lambda content: content.update(image_shape=[1, 0, 32]), "no shape"),
        (lambda content: content.update(surprise=1), "unknown key 'surprise'"),
        (lambda content: content.update(files="all"), r"qbench\.json \(files\)"),
        (lambda content: content["cell"].update(seed=-1), r"cell\.seed"),
    ],
)
def test_what_it_cannot_say(change: Callable[[Any], None], sentence: str, own_copy: Path) -> None:
    alter(own_copy, change)
    with pytest.raises(DataError, match=sentence):
        read_info(own_copy)


def test_files_that_are_gone_or_were_added(own_copy: Path) -> None:
    (own_copy / "unet" / ".DS_Store").write_text("of no matter")
    (own_copy / "notes.txt").write_text("of no matter")
    (own_copy / "README.md").write_text("edited")
    assert isinstance(read_info(own_copy), ExportInfo)
    (own_copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(DataError, match=r"diffusion_pytorch_model\.bin was added"):
        read_info(own_copy)
    (own_copy / "unet" / "diffusion_pytorch_model.bin").unlink()
    shutil.rmtree(own_copy / "vae")
    with pytest.raises(DataError, match=r"lacks vae/config\.json: copy the whole folder"):
        read_info(own_copy)
