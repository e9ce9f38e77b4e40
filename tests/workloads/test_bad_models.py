"""Models, captions and real images that are not what they should be: one sentence each, and nothing half-cached."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
import yaml
from originals import original
from PIL import Image

Qbench = Callable[..., Any]
Refused = Callable[..., str]
SAMPLER = {"steps": 2, "eta": 0}


@pytest.fixture(autouse=True)
def _small_metrics(fake_plugins: Path, install: Callable[..., None]) -> None:
    install("small", small.ENTRY_POINTS, {"small_metrics.py": small.MODULE})


@pytest.fixture
def home(workplace: Path) -> Path:
    """Where suites lie, with a model that nothing is wrong with, and real images."""
    small.ddpm(workplace / "my-ddpm")
    small.pictures(workplace / "train", 16)
    return workplace


def write(home: Path, workload: dict[str, Any], **changes: Any) -> Path:
    content = {
        "name": "small",
        "workloads": [{"name": "mine", "pipeline": "./my-ddpm", "sampler": SAMPLER} | workload],
        "methods": ["squant"],
        "bits": ["W4A32"],
        "metrics": ["mse-to-fp", "small-distance"],
        "samples": 2,
    }
    path = home / "small.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


@pytest.fixture
def refused(qbench: Qbench, home: Path) -> Refused:
    """Return a function that runs a suite that is refused before any work, and returns its sentence."""

    def refuse(workload: dict[str, Any], **changes: Any) -> str:
        answer = qbench("run", write(home, {"reference": {"images": "./train"}} | workload, **changes))
        assert answer.code == 1, answer.err
        assert answer.out == ""
        (line,) = answer.err.splitlines()
        assert line.startswith("qbench: ")
        assert not list((home / "store").rglob("manifest.json"))
        assert not (home / "results" / "small" / "table.md").exists()
        return line.removeprefix("qbench: ")

    return refuse


def text_model(folder: Path) -> Path:
    """What is read of a model with captions before it is loaded."""
    for part, config in {
        "unet": {"_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 3, "out_channels": 3},
        "text_encoder": {"architectures": ["CLIPTextModel"]},
        "tokenizer": {},
    }.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"weights")
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    return folder


WORKLOADS: dict[str, tuple[dict[str, Any], str]] = {
    "guidance where there are no captions": (
        {"sampler": {**SAMPLER, "guidance_scale": 3.0}},
        "mine: it samples without captions, so a guidance_scale of 3 has nothing to guide by",
    ),
    "more steps than the schedule has": ({"sampler": {"steps": 101}}, "101 steps are more than the 100"),
    "unknown sampler": ({"sampler": {"name": "dimm"}}, "sampler.name.*'ddim'"),
    "a sampler that does not fit the folder's": ({"sampler": {"name": "euler", "eta": 1}}, "eta 1 means nothing to it"),
    "a model and a workload that ships": ({"name": "tiny-ddim"}, "'tiny-ddim' is the id of a workload"),
    "a model and a setting of another workload": ({"settings": {"gain": 2}}, "unknown key 'gain'"),
    "the model said twice": ({"settings": {"model": "./other"}}, "'pipeline' and the setting 'model' are both given"),
    "no model": ({"pipeline": ""}, "'pipeline' needs a model: say which"),
    "a model that is no text": ({"pipeline": 5}, "pipeline.*string, found 5"),
    "a model in a list": ({"pipeline": ["./my-ddpm"]}, "pipeline.*string"),
    "no folder of diffusers": ({"pipeline": "./train"}, "train is no folder of diffusers: it holds no config.json"),
    "a file": ({"pipeline": "small.yaml"}, "small.yaml is a file: give the folder of a diffusers pipeline"),
    "real images in two places": (
        {"reference": {"images": "./train", "lmdb": "./train"}},
        "images and lmdb are given: say in one way only",
    ),
    "unknown key of the reference": ({"reference": {"image": "./train"}}, "did you mean 'images'"),
    "a reference that is no mapping": ({"reference": "./train"}, "reference.*keys with values"),
    "no real images": ({"reference": {}}, "are not given: say in `reference` where they are"),
    "real images of another size": (
        {"reference": {"images": "./train", "preprocessing": {"size": 32}}},
        "32x32 pixels after preprocessing, and samples are 16x16",
    ),
    "more real images than there are": (
        {"reference": {"images": "./train", "limit": 9}},
        "holds 3 images, and `limit` asks for 9",
    ),
    "captions for a model that reads none": (
        {"settings": {"captions": "captions.txt"}},
        "has no text encoder, which 'captions' is for: leave it out",
    ),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_that_cannot_be(refused: Refused, home: Path, name: str) -> None:
    workload, expected = WORKLOADS[name]
    small.ddpm(home / "my-ddpm", num_train_timesteps=100)
    small.captions(home / "captions.txt", ["a cat", "a dog"])
    words = refused(workload)
    assert words.startswith(f"{home}/small.yaml")
    assert re.search(expected, words), words


def test_a_folder_that_is_not_there(qbench: Qbench, home: Path) -> None:
    """Everything that is missing is told at once, so that this takes more than a line."""
    workload = {"pipeline": "./my-dppm", "reference": {"images": "./trian"}}
    answer = qbench("run", write(home, workload))
    assert answer.code == 1
    assert answer.err.splitlines()[1:] == [
        "  the model of 'my-dppm' (by hand; for mine)",
        f"    {home}/my-dppm is missing: give the folder of a diffusers pipeline, or an id on Hugging Face's hub such "
        "as owner/name",
        "  the real images of 'my-dppm' (by hand; for mine)",
        f"    {home}/trian is missing: 'images' of its reference names it",
        "what is to be brought by hand no command gets",
    ]
    assert not list((home / "store").rglob("manifest.json"))


def spoil_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def drop_scheduler(folder: Path) -> None:
    (folder / "scheduler_config.json").unlink()


def other_scheduler(folder: Path) -> None:
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "KarrasVeScheduler"}))


def other_class(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"_class_name": "DiTTransformer2DModel"}))


def drop_weights(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").unlink()


FOLDERS = {
    spoil_json: "config.json is not valid JSON",
    drop_scheduler: "has no scheduler_config.json that says the noise schedule: give 'schedule'",
    other_scheduler: "_class_name 'KarrasVeScheduler'; known are DDIMScheduler, ",
    other_class: "describes a DiTTransformer2DModel; known are UNet2DModel, UNet2DConditionModel",
    drop_weights: "holds no weights: there is neither diffusion_pytorch_model.safetensors nor",
}


@pytest.mark.parametrize("spoil", FOLDERS, ids=lambda spoil: spoil.__name__)
def test_a_folder_that_is_no_model(refused: Refused, home: Path, spoil: Callable[[Path], None]) -> None:
    spoil(home / "my-ddpm")
    words = refused({})
    assert FOLDERS[spoil] in words
    assert str(home / "my-ddpm") in words


CAPTIONS: dict[str, tuple[list[str], str]] = {
    "a control character": (["a cat", "a \x07dog"], r"txt, line 2: the caption holds the control character U\+0007"),
    "10,000 words": (["a cat", "dog " * 10_000], r"line 2: the caption has 10,000 words"),
    "too few": (["a cat"], "are 1 captions, and 2 samples are asked for"),
    "an empty line": (["a cat", "", "a dog"], "line 2: there is no caption"),
    "none": ([], "holds no captions"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAPTIONS)
@pytest.mark.parametrize("key", ["captions", "calibration_captions"])
def test_captions_that_cannot_be(refused: Refused, home: Path, name: str, key: str) -> None:
    texts, expected = CAPTIONS[name]
    if (key, name) == ("calibration_captions", "too few"):
        return  # they come again
    text_model(home / "my-sd")
    small.captions(home / "good.txt", ["a cat", "a dog"])
    small.captions(home / "captions.txt", texts)
    given = {"captions": "good.txt", "calibration_captions": "good.txt"} | {key: "captions.txt"}
    assert re.search(expected, refused({"pipeline": "./my-sd", "settings": given}))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "conditioned on captions, and none are given: name a file of them as 'captions'"),
        ({"captions": "good.txt"}, "none are given: name a file of them as 'calibration_captions'"),
        ({"captions": "no.txt", "calibration_captions": "good.txt"}, "no.txt cannot be read"),
        ({"captions": "train", "calibration_captions": "good.txt"}, "train is no file of captions"),
    ],
)
def test_captions_that_are_not_there(refused: Refused, home: Path, settings: dict[str, str], expected: str) -> None:
    text_model(home / "my-sd")
    small.captions(home / "good.txt", ["a cat", "a dog"])
    assert expected in refused({"pipeline": "./my-sd", "settings": settings})


def test_the_captions_that_ship_are_5000(qbench: Qbench, home: Path) -> None:
    text_model(home / "my-sd")
    workload = {"name": "sd-v1-4", "settings": {"model": "./my-sd"}, "reference": {"images": "./train"}}
    scheduler = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012}
    (home / "my-sd" / "scheduler_config.json").write_text(json.dumps(scheduler | {"beta_schedule": "scaled_linear"}))
    path = write(home, workload, samples=5001)
    content = yaml.safe_load(path.read_text())
    del content["workloads"][0]["pipeline"]
    path.write_text(yaml.safe_dump(content))
    answer = qbench("run", path)
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert "are 5,000 captions, and 5,001 samples are asked for: ask for 5,000 at most" in line


class TestRealImages:
    def test_an_empty_folder(self, refused: Refused, home: Path) -> None:
        (home / "empty").mkdir()
        words = refused({"reference": {"images": "./empty"}})
        assert f"{home}/empty holds no images" in words

    def test_cmyk(self, refused: Refused, home: Path) -> None:
        small.pictures(home / "cmyk", 16, mode="CMYK")
        assert f"{home}/cmyk/0.jpg is in CMYK colours: convert it first" in refused({"reference": {"images": "./cmyk"}})

    def test_no_image(self, refused: Refused, home: Path) -> None:
        (home / "train" / "3.png").write_bytes(b"no image")
        assert f"{home}/train/3.png cannot be read as an image (of no known format)" in refused({})

    def test_grey_ones_count_as_colour(self, qbench: Qbench, home: Path) -> None:
        """Of three equal channels, as the reference implementations of FID read them."""
        small.pictures(home / "grey", 16, mode="L")
        path = write(home, {"reference": {"images": "./grey"}}, metrics=["small-distance"])
        assert qbench("run", path, "--only", "method=full-precision").code == 0

    def test_one_that_is_cut_short_fails_the_figures_that_need_it(self, qbench: Qbench, home: Path) -> None:
        whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
        whole.save(home / "train" / "3.png")
        content = (home / "train" / "3.png").read_bytes()
        (home / "train" / "3.png").write_bytes(content[: len(content) // 2])
        answer = qbench("run", write(home, {"reference": {"images": "./train"}}), "--only", "method=full-precision")
        assert answer.code == 1
        assert answer.err.count(f"{home}/train/3.png cannot be read as an image (image file is truncated") == 1
        assert not small.stored(home / "store", "reference")
        assert not list((home / "store" / "pending").iterdir())
        (record,) = small.records(home / "results" / "small").values()
        assert "train/3.png cannot be read" in record["reason"]

    def test_statistics_without_the_spatial_feature_fail_what_needs_it_alone(self, qbench: Qbench, home: Path) -> None:
        np.savez(home / "real.npz", mu=np.zeros(12), sigma=np.eye(12))
        reference = {"statistics": "./real.npz", "statistics_of": "small-means"}
        metrics = ["small-distance", "small-spatial"]
        path = write(home, {"reference": reference}, metrics=metrics)
        answer = qbench("run", path, "--only", "method=full-precision")
        assert answer.code == 1
        (record,) = small.records(home / "results" / "small").values()
        assert record["status"] == "failed"
        assert record["figures"].keys() == {"small-distance"}
        assert "lack the feature 'spatial': give others, or the images themselves" in record["reason"]
        assert "small-distance" not in record["reason"]

    def test_damaged_statistics(self, refused: Refused, home: Path) -> None:
        (home / "real.npz").write_bytes(b"no zip")
        words = refused({"reference": {"statistics": "./real.npz", "statistics_of": "small-means"}})
        assert f"{home}/real.npz cannot be read as statistics" in words


class TestCheckpoints:
    @pytest.fixture
    def failed(self, qbench: Qbench, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
        """Return a function that runs the bedrooms from ``model.ckpt``, which fails, and returns why."""
        family = original("bedrooms").family
        monkeypatch.setattr("qbench.workloads.paper.LDMBedroom.family", family)
        small.pictures(home / "real", 64)
        reference = {"images": "./real", "preprocessing": {"size": 64}}
        workload = {"name": "ldm-lsun-bedroom", "settings": {"model": "model.ckpt"}, "reference": reference}

        def run() -> str:
            path = write(home, {}, workloads=[{**workload, "sampler": SAMPLER}])
            answer = qbench("run", path)
            assert answer.code == 1
            assert "Traceback" not in answer.err
            (line,) = (each for each in answer.err.splitlines() if each.startswith("failed: "))
            assert f"the checkpoint {home}/model.ckpt" in line
            assert not small.stored(home / "store", "conversion")
            assert not list((home / "store" / "pending").iterdir())
            reasons = [record["reason"] for record in small.records(home / "results" / "small").values()]
            assert len(reasons) == 2
            assert all("conversion: the checkpoint" in reason for reason in reasons)
            return line

        return run

    def test_another_architecture(self, failed: Callable[[], str], home: Path) -> None:
        original("churches").write(home / "model.ckpt")
        assert "is not LDM-4 of LSUN-Bedrooms (lsun_beds256)" in failed()

    def test_a_missing_key(self, failed: Callable[[], str], home: Path) -> None:
        state = original("bedrooms").state(ema=False)
        del state["model.diffusion_model.out.2.bias"]
        torch.save({"state_dict": state}, home / "model.ckpt")
        assert "it lacks model.diffusion_model.out.2.bias" in failed()

    def test_one_that_is_cut_short(self, failed: Callable[[], str], home: Path) -> None:
        content = original("bedrooms").write(home / "model.ckpt").read_bytes()
        (home / "model.ckpt").write_bytes(content[: len(content) // 2])
        assert "is truncated, damaged, or not of the kind that its name says; fetch it again" in failed()

    def test_it_is_mended_and_goes_on(self, failed: Callable[[], str], home: Path, qbench: Qbench) -> None:
        (home / "model.ckpt").write_bytes(b"nothing")
        failed()
        original("bedrooms").write(home / "model.ckpt")
        answer = qbench("run", home / "small.yaml", "--only", "method=full-precision")
        assert answer.code == 0, answer.err


def test_weights_of_a_folder_that_are_cut_short(qbench: Qbench, home: Path) -> None:
    weights = home / "my-ddpm" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    path = write(home, {"reference": {"images": "./train"}})
    answer = qbench("run", path, "--only", "method=full-precision")
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert "its weights are damaged or do not fit its config.json" in answer.err
    assert {path.parent.parent.name for path in (home / "store").rglob("manifest.json")} <= {"reference"}
