"""Local folders and converted checkpoints, quantized, exported, and loaded again: what the zoo's models have not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import yaml
from originals import original

import qbench as package
from qbench.workloads.conversion import convert

Qbench = Callable[..., Any]
CAPTIONS = ["a cat on a mat", "two dogs, running"]


def written(workplace: Path, name: str) -> Path:
    """A folder of diffusers beside the suite."""
    folder = workplace / "model"
    if name == "pixels":
        return small.ddpm(folder)
    folder.mkdir()
    found = original(name)
    family = replace(found.family, denoiser={**found.family.denoiser, "sample_size": 16})
    convert(found.write(workplace / "model.ckpt"), family, folder)
    return folder


def run_and_export(qbench: Qbench, workplace: Path, workload: dict[str, Any], bits: str = "W4A8") -> tuple[Any, Any]:
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


@pytest.mark.parametrize("name", ["pixels", "churches", "stable-diffusion"])
def test_a_folder_of_diffusers(name: str, qbench: Qbench, workplace: Path) -> None:
    written(workplace, name)
    workload: dict[str, Any] = {"name": "mine", "pipeline": "./model"}
    prompt = None
    if name == "stable-diffusion":
        small.captions(workplace / "captions.txt", CAPTIONS)
        small.captions(workplace / "others.txt", ["a house"])
        workload["settings"] = {"captions": "./captions.txt", "calibration_captions": "./others.txt"}
        workload["sampler"] = {"guidance_scale": 4.0}
        prompt = CAPTIONS
    expected, pipeline = run_and_export(qbench, workplace, workload)
    images = pipeline(prompt, num_images=2, output_type="np").images
    np.testing.assert_array_equal((images * 255).round().astype(np.uint8).transpose(0, 3, 1, 2), expected)
    told = json.loads((workplace / "to" / "qbench.json").read_text())
    assert bool(told["heads"]) == (name == "churches")  # whose heads no configuration expresses
    assert told["sampler"]["name"] == ("plms" if name == "stable-diffusion" else "ddim")


def test_an_original_checkpoint(qbench: Qbench, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was converted to lies in the store."""
    found = original("bedrooms")
    family = replace(found.family, denoiser={**found.family.denoiser, "sample_size": 16})
    monkeypatch.setattr("qbench.workloads.paper.LDMBedroom.family", family)
    found.write(workplace / "model.ckpt")
    workload = {"name": "ldm-lsun-bedroom", "settings": {"model": "./model.ckpt"}}
    expected, pipeline = run_and_export(qbench, workplace, workload, "W4A32")
    images = pipeline(num_images=2, output_type="np").images
    np.testing.assert_array_equal((images * 255).round().astype(np.uint8).transpose(0, 3, 1, 2), expected)
