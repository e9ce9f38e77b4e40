"""Every model of the zoo with its recipe: what to train, on what, and towards what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from qbench.zoo.caption_tokenizer import load_tokenizer
from qbench.zoo.classifier_training import FASHION_FEATURES, classifier_loss, initial_classifier
from qbench.zoo.clip_training import CLIP_TINY, clip_loss, initial_clip
from qbench.zoo.denoiser_training import TINY_DDIM, denoiser_loss, initial_denoiser
from qbench.zoo.fashion_mnist import FashionMnist, load_fashion_mnist, pad, unpad
from qbench.zoo.first_stage_training import FASHION_KL, FASHION_VQ, initial_kl, initial_vq, kl_loss, vq_loss
from qbench.zoo.first_stages import FirstStageName, load_first_stage
from qbench.zoo.garments import Garment, describe, find_thresholds
from qbench.zoo.latent_training import (
    TINY_LDM,
    TINY_LDM_KL,
    TINY_SD,
    initial_ldm,
    initial_ldm_kl,
    initial_sd,
    latent_loss,
    latents_of,
    text_loss,
)
from qbench.zoo.loop import BatchLoss
from qbench.zoo.schedules import LSUN_BEDROOMS, LSUN_CHURCHES, STABLE_DIFFUSION
from qbench.zoo.settings import TrainingSettings

Prepare = Callable[[TrainingSettings, Path | None], tuple[nn.Module, BatchLoss]]
"""From settings and the folder of the data to the initial network and the loss."""


@dataclass(frozen=True)
class Recipe:
    """How one model is trained."""

    settings: TrainingSettings
    """Of the shipped model."""
    prepare: Prepare
    """Makes the network and the loss."""


def _tiny_ddim(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    return initial_denoiser(settings), denoiser_loss(load_fashion_mnist("train", data).images, settings)


def _fashion_features(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    train = load_fashion_mnist("train", data)
    return initial_classifier(settings), classifier_loss(train.images, train.labels, settings)


def _fashion_vq(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    return initial_vq(settings), vq_loss(load_fashion_mnist("train", data, pad).images, settings)


def _fashion_kl(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    return initial_kl(settings), kl_loss(load_fashion_mnist("train", data, pad).images, settings)


def _tiny_ldm(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    return initial_ldm(settings), latent_loss(_latents("fashion-vq", data), LSUN_BEDROOMS, settings)


def _tiny_ldm_kl(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    return initial_ldm_kl(settings), latent_loss(_latents("fashion-kl", data), LSUN_CHURCHES, settings)


def _tiny_sd(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    tokenizer = load_tokenizer()
    train = load_fashion_mnist("train", data, pad)
    latents = _latents("fashion-kl", data)
    loss = text_loss(latents, garments_of(train), STABLE_DIFFUSION, settings, tokenizer)
    return initial_sd(settings, len(tokenizer), tokenizer.eos_token_id), loss


def _clip_tiny(settings: TrainingSettings, data: Path | None) -> tuple[nn.Module, BatchLoss]:
    tokenizer = load_tokenizer()
    train = load_fashion_mnist("train", data, pad)
    loss = clip_loss(train.images, garments_of(train), settings, tokenizer)
    return initial_clip(settings, len(tokenizer)), loss


RECIPES = {
    recipe.settings.name: recipe
    for recipe in (
        Recipe(TINY_DDIM, _tiny_ddim),
        Recipe(FASHION_FEATURES, _fashion_features),
        Recipe(FASHION_VQ, _fashion_vq),
        Recipe(FASHION_KL, _fashion_kl),
        Recipe(TINY_LDM, _tiny_ldm),
        Recipe(TINY_LDM_KL, _tiny_ldm_kl),
        Recipe(TINY_SD, _tiny_sd),
        Recipe(CLIP_TINY, _clip_tiny),
    )
}
"""By name."""


def garments_of(train: FashionMnist) -> list[Garment]:
    """What is said of the training images [N, 1, 32, 32]."""
    images = unpad(train.images)
    return describe(images, train.labels, find_thresholds(images, train.labels))


def _latents(first_stage: FirstStageName, data: Path | None) -> Tensor:
    """Scaled latents of all training images under a shipped first stage."""
    loaded = load_first_stage(first_stage)
    return loaded.factor * latents_of(load_fashion_mnist("train", data, pad).images, loaded.module)
