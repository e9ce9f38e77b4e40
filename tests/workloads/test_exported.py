"""Local folders and converted checkpoints, quantized, exported, and loaded again: what the zoo's models have not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import yaml
from originals import Original, original

import qbench as package
from qbench.workloads.conversion import convert

Qbench = Callable[..., Any]
CAPTIONS = ["a cat on a mat", "two dogs, running"]


def reduced(name: str) -> Original:
    """An original model on latents of 16x16."""
    found = original(name)
    return replace(found, family=replace(found.family, denoiser={**found.family.denoiser, "sample_size": 16}))


def run_and_export(qbench: Qbench, workplace: Path, workload: dict[str, Any], bits: str) -> tuple[Any, Any]:
    """Return the images of the cell and the pipeline it became."""
    content = {
        "name": "small",
        "workloads": [workload],
        "methods": [{"name": "linear", "settings": small.CALIBRATION}],
        "bits": [bits],
        "metrics": ["mse-to-fp"],
        "samples": 2,
        "steps": 2,
    }
    (workplace / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    answer = qbench("run", "small.yaml")
    assert answer.code == 0, answer.err
    answer = qbench("export", f"{workload['name']}.linear.{bits}.s0", "--to", "to")
    assert answer.code == 0, answer.err
    record = small.records(workplace / "results" / "small")["linear", bits]
    (digest,) = [each["digest"] for each in record["stages"] if each["stage"] == "sample"]
    pipeline = package.load_quantized("to", device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return np.load(workplace / "store" / "artefacts" / "sample" / digest / "images.npy"), pipeline


def assert_same(images: Any, expected: Any) -> None:
    np.testing.assert_array_equal((images * 255).round().astype(np.uint8).transpose(0, 3, 1, 2), expected)


def test_a_folder_of_pixels(qbench: Qbench, workplace: Path) -> None:
    small.ddpm(workplace / "model")
    expected, pipeline = run_and_export(qbench, workplace, {"name": "mine", "pipeline": "./model"}, "W4A8")
    assert_same(pipeline(num_images=2, output_type="np").images, expected)
    assert pipeline.info.codec.kind == "identity"
    assert pipeline().images[0].mode == "RGB"


def test_a_folder_with_captions(qbench: Qbench, workplace: Path) -> None:
    (workplace / "model").mkdir()
    model = reduced("stable-diffusion")
    convert(model.write(workplace / "model.ckpt"), model.family, workplace / "model")
    small.captions(workplace / "captions.txt", CAPTIONS)
    small.captions(workplace / "others.txt", ["a house"])
    workload = {
        "name": "mine",
        "pipeline": "./model",
        "settings": {"captions": "./captions.txt", "calibration_captions": "./others.txt"},
        "sampler": {"guidance_scale": 4.0},
    }
    expected, pipeline = run_and_export(qbench, workplace, workload, "W4A32")
    assert_same(pipeline(CAPTIONS, output_type="np").images, expected)
    assert (pipeline.info.sampler.name, pipeline.info.heads) == ("plms", {})


def test_an_original_checkpoint_with_heads_that_no_configuration_expresses(
    qbench: Qbench, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was converted to lies in the store."""
    model = reduced("churches")
    monkeypatch.setattr("qbench.workloads.paper.LDMChurch.family", model.family)
    model.write(workplace / "model.ckpt")
    small.pictures(workplace / "real", 128)
    workload = {"name": "ldm-lsun-church", "settings": {"model": "./model.ckpt"}, "reference": {"images": "./real"}}
    expected, pipeline = run_and_export(qbench, workplace, workload, "W4A32")
    (workplace / "model.ckpt").unlink()
    assert_same(pipeline(num_images=2, output_type="np").images, expected)
    assert set(pipeline.info.heads.values()) == {8}
