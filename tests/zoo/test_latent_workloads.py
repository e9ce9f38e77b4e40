import math
from pathlib import Path

import pytest
import torch

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.plugins import WORKLOADS
from qbench.zoo.fashion_workload import FashionWorkload
from qbench.zoo.garments import Garment, caption
from qbench.zoo.latent_workloads import TinyLDM, TinyLDMKL, TinySD
from qbench.zoo.paths import TOKENIZER

NAMES = {"tiny-ldm": TinyLDM, "tiny-ldm-kl": TinyLDMKL, "tiny-sd": TinySD}


def workload(name: str) -> FashionWorkload:
    found = WORKLOADS.load(name)
    assert found is NAMES[name]
    return found(WORKLOADS.entry(name), found.settings_class())


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_loaded_whole(name: str, untrained: Path) -> None:
    found = workload(name)
    loaded = found.load()
    assert found.image_shape == (1, 32, 32)
    images = torch.rand(2, *found.image_shape) * 2 - 1
    latents = loaded.codec.encode(images)
    assert latents.shape == (2, *found.latent_shape)
    assert loaded.codec.decode(latents).shape == images.shape
    context = {} if loaded.conditioning is None else loaded.conditioning(["a bag", ""])
    assert (loaded.conditioning is not None) == found.has_captions == (name == "tiny-sd")
    with torch.no_grad():
        noise = loaded.module(latents, torch.tensor([1, 999]), **context).sample
    assert noise.shape == latents.shape
    assert not loaded.module.training


@pytest.mark.parametrize("name", NAMES)
def test_its_weights_identify_it(name: str, untrained: Path) -> None:
    found = workload(name)
    own = [f"{each}.safetensors" for each in found.weight_names]
    described = found.describe()["weights"]
    assert {each: described[each] for each in own} == {each: file_digest(untrained / each) for each in own}
    tokenizer = {each: file_digest(TOKENIZER / each) for each in ("merges.txt", "vocab.json")}
    assert {each: value for each, value in described.items() if each not in own} == (
        tokenizer if name == "tiny-sd" else {}
    )


def test_each_is_sampled_like_the_model_that_it_stands_for() -> None:
    """The scripts of latent diffusion and of Stable Diffusion shift uniform steps by one and end at the first level."""
    for name, sampler in {
        "tiny-ldm": {"name": "ddim", "eta": 1.0},
        "tiny-ldm-kl": {"name": "ddim", "eta": 0.0},
        "tiny-sd": {"name": "plms", "eta": 0.0, "guidance_scale": 3.0},
    }.items():
        dumped = workload(name).sampler.model_dump()
        assert dumped == {"steps": 20, "steps_offset": 1, "final_alpha": "first", **sampler}


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [("tiny-ldm", 0.0015, 0.0195), ("tiny-ldm-kl", 0.0015, 0.0155), ("tiny-sd", 0.00085, 0.012)],
)
def test_each_has_the_schedule_of_the_model_that_it_stands_for(name: str, start: float, end: float) -> None:
    schedule = workload(name).schedule
    assert (schedule.beta_start, schedule.beta_end) == (start, end)
    assert (schedule.betas, schedule.prediction, schedule.train_steps) == ("scaled_linear", "epsilon", 1000)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_compared_with_the_training_images(name: str, untrained: Path) -> None:
    digest = file_digest(untrained / "fashion-features.safetensors")
    reference = workload(name).reference("fashion", {"fashion-features.safetensors": digest})
    assert reference.samples == 60_000
    with pytest.raises(DataError, match=f"'{name}' ships reference statistics for the extractor 'fashion' only"):
        workload(name).reference("inception", {"other": "0" * 64})


@pytest.mark.usefixtures("captions")
def test_captions_are_taken_in_their_order(said: list[Garment]) -> None:
    found = workload("tiny-sd")
    assert list(found.captions(range(3, 6))) == [caption(each) for each in said[3:6]]
    assert list(found.captions(range(64))) == [caption(each) for each in said]
    with pytest.raises(DataError) as problem:
        found.captions(range(60, 65))
    assert str(problem.value) == ("the workload 'tiny-sd' has 64 captions, and 65 are asked for: ask for fewer samples")


@pytest.mark.usefixtures("captions")
def test_calibration_captions_come_again(said: list[Garment]) -> None:
    assert workload("tiny-sd").calibration_captions(range(6, 18)) == [
        caption(said[index % 8]) for index in range(6, 18)
    ]


def test_titles_count_the_parameters(untrained: Path) -> None:
    for name in NAMES:
        found = workload(name)
        millions = sum(parameter.numel() for parameter in found.load().module.parameters()) / 1e6
        assert f"{math.floor(millions * 10 + 0.5) / 10} M parameters" in found.title
