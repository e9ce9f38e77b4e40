"""The figures that a card quotes, measured with the finished weights on data that no training saw."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from qbench.diffusion.codecs import PixelUnshuffle, from_uint8, to_uint8
from qbench.diffusion.noise import Purpose
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.samplers import NoiseSource, StepContext, make_sampler, sample
from qbench.metrics.frechet import frechet_distance, gaussian
from qbench.metrics.metric import Gaussian
from qbench.zoo.denoiser_training import STEPS, noised, to_latents
from qbench.zoo.draws import generator, stratified_timesteps
from qbench.zoo.networks import IMAGE_SHAPE, LATENT_SHAPE, PIXELS_PER_BLOCK, FashionFeatures

BANDS = ((0, 50), (50, 250), (250, 500), (500, 750), (750, 1000))
"""Timesteps over which the held-out loss is averaged: from, to (not included)."""

_BATCH = 250


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean squared error of the predicted noise on images that were not trained on."""

    overall: float
    """Over all timesteps alike."""
    bands: dict[str, float]
    """Over each band of timesteps, by its name, e.g. `0-49`."""


@torch.no_grad()
def held_out_loss(model: UNet2DModel, images: NDArray[np.uint8]) -> HeldOutLoss:
    """Loss with noise and timesteps that are the same for every model; every timestep comes up about equally often.

    Args:
        model: The denoiser, in evaluation mode.
        images: Test images [N, 1, 16, 16]; with 10,000 each of the 1,000 timesteps is met ten times.
    """
    latents = to_latents(torch.from_numpy(images))
    source = generator(0, "held-out", 0)
    timesteps = stratified_timesteps(len(latents), STEPS, source)
    noise = torch.randn(latents.shape, generator=source)
    mixed = noised(latents, noise, timesteps)
    errors = torch.cat(
        [
            (model(mixed[rows], timesteps[rows]).sample - noise[rows]).square().mean(dim=(1, 2, 3)).double()
            for rows in _batches(len(mixed))
        ]
    )
    bands = {
        f"{first}-{end - 1}": float(errors[(timesteps >= first) & (timesteps < end)].mean()) for first, end in BANDS
    }
    return HeldOutLoss(float(errors.mean()), bands)


@torch.no_grad()
def sampled_images(model: UNet2DModel, count: int, steps: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images of the DDIM sampler with eta 0.

    Args:
        model: The denoiser, in evaluation mode.
        count: How many images.
        steps: Sampling steps.
        seed: Seed of the addressed noise.

    Returns:
        Grey images [count, 1, 16, 16].
    """

    def denoise(x: Tensor, step: StepContext) -> Tensor:
        estimate: Tensor = model(x, step.timestep).sample
        return estimate

    sampler = make_sampler(ScheduleSettings(), SamplerSettings(steps=steps))
    codec = PixelUnshuffle(PIXELS_PER_BLOCK)
    shards = []
    for rows in _batches(count):
        noise = NoiseSource(LATENT_SHAPE, seed, Purpose.EVALUATION, range(count)[rows])
        latents = sample(denoise, sampler, noise, torch.device("cpu"))
        shards.append(to_uint8(codec.decode(latents)).numpy())
    return np.concatenate(shards)


def noise_images(count: int) -> NDArray[np.uint8]:
    """Images of standard normal noise, rounded and clamped like samples: what a useless model would give.

    Returns:
        Grey images [count, 1, 16, 16].
    """
    pixels = torch.randn((count, *IMAGE_SHAPE), generator=generator(0, "noise images", 0))
    images: NDArray[np.uint8] = to_uint8(pixels).numpy()
    return images


@torch.no_grad()
def fashion_features(images: NDArray[np.uint8], network: FashionFeatures) -> dict[str, NDArray[np.float64]]:
    """Features of images.

    Args:
        images: Grey images [N, 1, 16, 16].
        network: The feature network, in evaluation mode.

    Returns:
        `pooled` [N, 64], `spatial` [N, 128] and `logits` [N, 10], computed in float32, given in float64.
    """
    outputs = [network(from_uint8(torch.from_numpy(images[rows]))) for rows in _batches(len(images))]
    return {
        feature: torch.cat([getattr(output, feature) for output in outputs]).double().numpy()
        for feature in ("pooled", "spatial", "logits")
    }


def accuracy(images: NDArray[np.uint8], labels: NDArray[np.int64], network: FashionFeatures) -> float:
    """Fraction of images [N, 1, 16, 16] whose class [N] the network names."""
    logits = fashion_features(images, network)["logits"]
    return float((logits.argmax(axis=1) == labels).mean())


def distance_to_real(images: NDArray[np.uint8], network: FashionFeatures, real: Gaussian) -> float:
    """Frechet distance between the pooled features of images [N, 1, 16, 16] and of the real ones."""
    return frechet_distance(real, gaussian(fashion_features(images, network)["pooled"]))


def parameter_count(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + _BATCH) for start in range(0, count, _BATCH))
