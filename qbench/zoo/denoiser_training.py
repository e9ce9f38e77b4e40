"""How tiny-ddim is trained: noise prediction on pixel-unshuffled Fashion-MNIST (Ho et al. 2020, DDPM, algorithm 1)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from qbench.diffusion.codecs import PixelUnshuffle, from_uint8
from qbench.zoo.draws import generator, stratified_timesteps
from qbench.zoo.loop import BatchLoss
from qbench.zoo.networks import PIXELS_PER_BLOCK, tiny_ddim_denoiser
from qbench.zoo.settings import TrainingSettings

STEPS = 1000
"""Length of the diffusion process."""

BETA_FIRST = 1e-4
"""Variance added by the first step."""

BETA_LAST = 0.02
"""Variance added by the last step; between them it grows linearly."""


TINY_DDIM = TrainingSettings(
    name="tiny-ddim",
    iterations=9_000,
    batch=64,
    learning_rate=1.5e-3,
    warmup=200,
    weight_decay=0.0,
    ema_decay=0.999,
    clip=1.0,
)
"""The recipe of the shipped model; other seeds give its siblings."""


def signal_levels() -> Tensor:
    """Cumulative products of 1 - beta for the linear schedule, float64 [1000]."""
    betas = torch.linspace(BETA_FIRST, BETA_LAST, STEPS, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0)


def to_latents(images: Tensor) -> Tensor:
    """Grey images uint8 [N, 1, 16, 16] to what the denoiser sees, float [N, 4, 8, 8] in [-1, 1]."""
    return PixelUnshuffle(PIXELS_PER_BLOCK).encode(from_uint8(images))


def noised(latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Latents at the given steps of the forward process (DDPM, equation 4)."""
    level = signal_levels().to(latents.device)[timesteps].view(-1, 1, 1, 1)
    return level.sqrt().float() * latents + (1.0 - level).sqrt().float() * noise


def initial_denoiser(settings: TrainingSettings) -> nn.Module:
    """The network before the first iteration, decided by the seed; PyTorch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(settings.seed, "initialization", 0).initial_seed())
        model: nn.Module = tiny_ddim_denoiser()
    return model.to(settings.device)


def denoiser_loss(images: NDArray[np.uint8], settings: TrainingSettings) -> BatchLoss:
    """Mean squared error of the predicted noise on the batch of an iteration.

    Args:
        images: Training images [N, 1, 16, 16].
        settings: Batch size, seed and device.
    """
    latents = to_latents(torch.from_numpy(images))

    def loss(model: nn.Module, iteration: int) -> Tensor:
        source = generator(settings.seed, "batch", iteration)
        rows = torch.randint(len(latents), (settings.batch,), generator=source)
        timesteps = stratified_timesteps(settings.batch, STEPS, source).to(settings.device)
        noise = torch.randn((settings.batch, *latents.shape[1:]), generator=source).to(settings.device)
        predicted = model(noised(latents[rows].to(settings.device), noise, timesteps), timesteps).sample
        return mse_loss(predicted, noise)

    return loss
