import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from qbench.diffusion.codecs import DiffusersFirstStage, from_uint8, to_uint8
from qbench.diffusion.noise import INITIAL, Purpose
from qbench.diffusion.noise_schedule import signal_levels
from qbench.diffusion.noise_source import NoiseSource
from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.first_stages import FirstStage, load_first_stage
from qbench.zoo.latent_figures import (
    Model,
    codes_used,
    held_out_loss,
    peak_signal_to_noise,
    reconstructed,
    sampled_images,
)
from qbench.zoo.schedules import STABLE_DIFFUSION

LEVELS = torch.from_numpy(signal_levels(STABLE_DIFFUSION)).float()


class Numbers:
    """Captions are numbers, and their context is filled with them; the empty one is 0."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        self.asked += captions
        values = torch.tensor([float(caption or 0) for caption in captions])
        return {"encoder_hidden_states": values.view(-1, 1, 1).expand(-1, 16, 64)}


@pytest.fixture(scope="module")
def first_stage(untrained_weights: Path) -> FirstStage:
    return load_first_stage("fashion-kl", untrained_weights / "fashion-kl.safetensors")


def model_of(predict, first_stage: FirstStage, **sampler) -> Model:
    return Model(predict, (4, 8, 8), STABLE_DIFFUSION, SamplerSettings(**sampler), first_stage)


def test_peak_signal_to_noise_is_that_of_all_pixels_together() -> None:
    images = np.full((2, 1, 4, 4), 100, np.uint8)
    others = images.copy()
    others[0] += 10  # half of the pixels are wrong by 10: a mean square of 50, downwards as well as upwards
    assert peak_signal_to_noise(images, others) == pytest.approx(10 * np.log10(255**2 / 50))
    assert peak_signal_to_noise(others, images) == peak_signal_to_noise(images, others)


def test_codes_are_counted_once(untrained_weights: Path) -> None:
    vq = load_first_stage("fashion-vq", untrained_weights / "fashion-vq.safetensors").module
    codes = vq.quantize.embedding.weight[[7, 7, 500, 12]]  # four positions of one latent, at their codes exactly
    latents = codes.T.reshape(1, 3, 2, 2)
    assert codes_used(latents, vq) == 3
    assert codes_used(latents.repeat(251, 1, 1, 1), vq) == 3


def test_images_come_back_as_the_codec_makes_them(first_stage: FirstStage, padded: FashionMnist) -> None:
    codec = DiffusersFirstStage(first_stage.module)
    expected = to_uint8(codec.decode(codec.encode(from_uint8(torch.from_numpy(padded.images[:3])))))
    found = reconstructed(padded.images[:3], first_stage)
    assert (found.shape, found.dtype) == ((3, 1, 32, 32), np.uint8)
    assert np.array_equal(found, expected.numpy())


def test_a_perfect_predictor_loses_nothing_and_a_silent_one_the_variance(first_stage: FirstStage) -> None:
    nothing = torch.zeros(300, 4, 8, 8)

    def perfect(x: torch.Tensor, timesteps: torch.Tensor, text: object) -> torch.Tensor:
        return x / (1 - LEVELS[timesteps]).sqrt().view(-1, 1, 1, 1)

    found = held_out_loss(model_of(perfect, first_stage), nothing)
    assert found.overall == pytest.approx(0, abs=1e-9)
    assert list(found.bands) == ["0-49", "50-249", "250-499", "500-749", "750-999"]
    silent = held_out_loss(model_of(lambda x, timesteps, text: torch.zeros_like(x), first_stage), nothing)
    assert silent.overall == pytest.approx(1, abs=0.02)


def test_the_held_out_loss_gives_each_image_its_caption(first_stage: FirstStage) -> None:
    """Each latent is filled with its own number, and so is its text: together they give the noise away."""
    numbers = torch.arange(260.0)
    latents = numbers.view(-1, 1, 1, 1).expand(-1, 4, 8, 8)

    def informed(x: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        level = LEVELS[timesteps].view(-1, 1, 1, 1)
        return (x - level.sqrt() * text[:, :1, :1, None]) / (1 - level).sqrt()

    model = dataclasses.replace(model_of(informed, first_stage), conditioning=Numbers())
    captions = [f"{number:g}" for number in numbers]
    assert held_out_loss(model, latents, captions).overall < 1e-3
    assert held_out_loss(model, latents, captions[::-1]).overall > 1


def test_sampling_a_gaussian_is_known_in_closed_form(first_stage: FirstStage) -> None:
    """Of standard normal data the noise in x is sqrt(1 - alpha) x, so a DDIM step multiplies x by a cosine."""

    def exact(x: torch.Tensor, timesteps: torch.Tensor, text: object) -> torch.Tensor:
        return (1 - LEVELS[timesteps]).sqrt().view(-1, 1, 1, 1) * x

    found = sampled_images(model_of(exact, first_stage, steps=999), 3, steps=4)
    levels = torch.cat([LEVELS[[750, 500, 250, 0]], torch.ones(1)]).double()
    angles = levels.sqrt().arccos()
    noise = NoiseSource((4, 8, 8), 0, Purpose.EVALUATION, range(3)).at(INITIAL, torch.device("cpu"))
    latents = noise * float(torch.cos(angles[:-1] - angles[1:]).prod())
    expected = to_uint8(DiffusersFirstStage(first_stage.module).decode(latents)).numpy()
    assert (found.shape, found.dtype) == ((3, 1, 32, 32), np.uint8)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert expected.std() > 1


@pytest.mark.parametrize("scale", [None, 1.0, 3.0])
def test_guidance_moves_away_from_the_empty_caption(first_stage: FirstStage, scale: float | None) -> None:
    def conditional(x: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return 0.1 * x + 0.3 + text[:, :1, :1, None]

    used = 2.0 if scale is None else scale  # None is the sampler's own

    def directly(x: torch.Tensor, timesteps: torch.Tensor, text: object) -> torch.Tensor:
        return 0.1 * x + 0.3 + used * torch.tensor([0.5, -0.25]).view(-1, 1, 1, 1)

    guided = dataclasses.replace(model_of(conditional, first_stage, guidance_scale=2.0), conditioning=Numbers())
    found = sampled_images(guided, 2, 2, ["0.5", "-0.25"], scale)
    expected = sampled_images(model_of(directly, first_stage), 2, 2)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert guided.conditioning.asked.count("") == (0 if used == 1.0 else 2)


def test_captions_that_are_left_over_change_nothing(first_stage: FirstStage) -> None:
    def conditional(x: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return 0.1 * x + text[:, :1, :1, None]

    model = dataclasses.replace(model_of(conditional, first_stage), conditioning=Numbers())
    assert np.array_equal(sampled_images(model, 1, 2, ["0.5", "7"]), sampled_images(model, 1, 2, ["0.5"]))
    assert "7" not in model.conditioning.asked
