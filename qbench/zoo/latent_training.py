"""How the latent stand-ins are trained: noise prediction on the latents of a first stage (arXiv 2112.10752)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import AutoencoderKL, VQModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from qbench.diffusion.codecs import from_uint8
from qbench.diffusion.noise_schedule import diffused, signal_levels
from qbench.diffusion.sampler_settings import ScheduleSettings
from qbench.zoo.caption_tokenizer import tokens_of
from qbench.zoo.draws import generator, initialized, stratified_timesteps
from qbench.zoo.garments import TEMPLATES, Garment, caption
from qbench.zoo.latent_networks import TinySD, tiny_ldm_denoiser, tiny_ldm_kl_denoiser
from qbench.zoo.loop import BatchLoss
from qbench.zoo.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

UNCONDITIONAL = 0.1
"""Share of captions that are left empty in training, for guidance (Ho and Salimans 2022, arXiv 2207.12598)."""

_BATCH = 250


def _recipe(name: str, iterations: int, learning_rate: float) -> TrainingSettings:
    return TrainingSettings(
        name=name,
        iterations=iterations,
        batch=64,
        learning_rate=learning_rate,
        warmup=200,
        weight_decay=0.0,
        ema_decay=0.999,
        clip=1.0,
    )


TINY_LDM = _recipe("tiny-ldm", 8_000, 1.5e-3)
TINY_LDM_KL = _recipe("tiny-ldm-kl", 8_000, 1.5e-3)
TINY_SD = _recipe("tiny-sd", 8_000, 1.2e-3)


def initial_ldm(settings: TrainingSettings) -> nn.Module:
    """The denoiser on the codebook's latents before the first iteration."""
    return initialized(tiny_ldm_denoiser, settings)


def initial_ldm_kl(settings: TrainingSettings) -> nn.Module:
    """The denoiser on the variational first stage's latents before the first iteration."""
    return initialized(tiny_ldm_kl_denoiser, settings)


def initial_sd(settings: TrainingSettings, vocabulary: int, end: int) -> nn.Module:
    """Denoiser and text encoder before the first iteration."""
    return initialized(partial(TinySD, vocabulary, end), settings)


@torch.no_grad()
def latents_of(images: NDArray[np.uint8], first_stage: VQModel | AutoencoderKL) -> Tensor:
    """Encode images [N, 1, 32, 32] to latents [N, C, 8, 8] as the first stage gives them, without chance."""
    found = []
    for start in range(0, len(images), _BATCH):
        encoded = first_stage.encode(from_uint8(torch.from_numpy(images[start : start + _BATCH])))
        found.append(encoded.latents if isinstance(first_stage, VQModel) else encoded.latent_dist.mode())
    return torch.cat(found)


def scaling_factor(latents: Tensor) -> float:
    """The factor that gives latents a standard deviation of 1, rounded to four digits."""
    return float(f"{1 / float(latents.double().std()):.4g}")


def latent_loss(latents: Tensor, schedule: ScheduleSettings, settings: TrainingSettings) -> BatchLoss:
    """Mean squared error of the predicted noise on the batch of an iteration.

    Args:
        latents: Scaled latents of the training images [N, C, 8, 8].
        schedule: The noise schedule.
        settings: Batch size, seed and device.
    """
    levels = signal_levels(schedule)

    def loss(model: nn.Module, iteration: int) -> Tensor:
        source = generator(settings.seed, "batch", iteration)
        noised, timesteps, noise, _ = _noised_batch(latents, levels, settings, source)
        return mse_loss(model(noised, timesteps).sample, noise)

    return loss


def text_loss(
    latents: Tensor,
    garments: Sequence[Garment],
    schedule: ScheduleSettings,
    settings: TrainingSettings,
    tokenizer: CLIPTokenizer,
) -> BatchLoss:
    """The same loss, where each image comes with its caption in a random wording, and now and then with none.

    Args:
        latents: Scaled latents of the training images [N, 4, 8, 8].
        garments: What is said of each image.
        schedule: The noise schedule.
        settings: Batch size, seed and device.
        tokenizer: The zoo's tokenizer.
    """
    levels = signal_levels(schedule)
    wordings = [caption_tokens(garments, template, tokenizer) for template in range(len(TEMPLATES))]
    (empty,) = tokens_of([""], tokenizer)
    tokens = torch.stack(wordings)

    def loss(model: nn.Module, iteration: int) -> Tensor:
        source = generator(settings.seed, "batch", iteration)
        noised, timesteps, noise, rows = _noised_batch(latents, levels, settings, source)
        said = tokens[torch.randint(len(tokens), (settings.batch,), generator=source), rows]
        silent = torch.rand((settings.batch, 1), generator=source) < UNCONDITIONAL
        return mse_loss(model(noised, timesteps, torch.where(silent, empty, said).to(settings.device)), noise)

    return loss


def caption_tokens(garments: Sequence[Garment], template: int, tokenizer: CLIPTokenizer) -> Tensor:
    """Captions of garments in one wording, as tokens [N, 16]."""
    said = [caption(garment, template) for garment in garments]
    distinct = list(dict.fromkeys(said))
    place = {text: index for index, text in enumerate(distinct)}
    return tokens_of(distinct, tokenizer)[[place[text] for text in said]]


def _noised_batch(
    latents: Tensor, levels: NDArray[np.float64], settings: TrainingSettings, source: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noised latents, their timesteps, the noise, and the rows of the training set."""
    rows = torch.randint(len(latents), (settings.batch,), generator=source)
    timesteps = stratified_timesteps(settings.batch, len(levels), source)
    noise = torch.randn((settings.batch, *latents.shape[1:]), generator=source)
    noised = diffused(latents[rows], noise, levels[timesteps.numpy()])
    device = settings.device
    return noised.to(device), timesteps.to(device), noise.to(device), rows
