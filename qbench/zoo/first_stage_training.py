"""How the first stages are trained: ``fashion-vq`` and ``fashion-kl`` (Rombach et al. 2022, arXiv 2112.10752, 3.1).

Neither a discriminator nor a perceptual loss is used: at 32x32 grey pixels the absolute error does.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL, VQModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from qbench.diffusion.codecs import from_uint8
from qbench.zoo.draws import generator, initialized
from qbench.zoo.latent_networks import fashion_kl, fashion_vq
from qbench.zoo.loop import BatchLoss
from qbench.zoo.settings import TrainingSettings

KL_WEIGHT = 1e-4
"""Weight of the divergence from a standard normal, per latent number, beside the error per pixel."""

FASHION_VQ = TrainingSettings(
    name="fashion-vq",
    iterations=2_400,
    batch=64,
    learning_rate=2e-3,
    warmup=100,
    weight_decay=0.0,
    ema_decay=0.995,
    clip=1.0,
)
"""The recipe of the shipped first stage with a codebook."""

FASHION_KL = TrainingSettings(
    name="fashion-kl",
    iterations=2_400,
    batch=64,
    learning_rate=2e-3,
    warmup=100,
    weight_decay=0.0,
    ema_decay=0.995,
    clip=1.0,
)
"""The recipe of the shipped variational first stage."""


def initial_vq(settings: TrainingSettings) -> nn.Module:
    """The network before the first iteration, decided by the seed."""
    return initialized(fashion_vq, settings)


def initial_kl(settings: TrainingSettings) -> nn.Module:
    """The network before the first iteration, decided by the seed."""
    return initialized(fashion_kl, settings)


def vq_loss(images: NDArray[np.uint8], settings: TrainingSettings) -> BatchLoss:
    """Error of the decoded image, plus the distance between latents and their codes.

    Args:
        images: Training images [N, 1, 32, 32].
        settings: Batch size, seed and device.
    """
    pixels = from_uint8(torch.from_numpy(images))

    def loss(model: nn.Module, iteration: int) -> Tensor:
        assert isinstance(model, VQModel)
        batch = _batch(pixels, settings, iteration)
        decoded = model(batch)
        total: Tensor = _error(decoded.sample, batch) + decoded.commit_loss.mean()
        return total

    return loss


def kl_loss(images: NDArray[np.uint8], settings: TrainingSettings) -> BatchLoss:
    """Error of an image decoded from a draw of its latents, plus their divergence from a standard normal.

    Args:
        images: Training images [N, 1, 32, 32].
        settings: Batch size, seed and device.
    """
    pixels = from_uint8(torch.from_numpy(images))

    def loss(model: nn.Module, iteration: int) -> Tensor:
        assert isinstance(model, AutoencoderKL)
        batch = _batch(pixels, settings, iteration)
        posterior = model.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator(settings.seed, "posterior", iteration))
        decoded = model.decode(posterior.mean + posterior.std * noise.to(settings.device)).sample
        total: Tensor = _error(decoded, batch) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        return total

    return loss


def _batch(pixels: Tensor, settings: TrainingSettings, iteration: int) -> Tensor:
    rows = torch.randint(len(pixels), (settings.batch,), generator=generator(settings.seed, "batch", iteration))
    return pixels[rows].to(settings.device)


def _error(decoded: Tensor, images: Tensor) -> Tensor:
    return l1_loss(decoded, images) + mse_loss(decoded, images)
