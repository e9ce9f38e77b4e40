"""How clip-tiny is trained: images and their captions, told apart from the others of a batch (arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from qbench.diffusion.codecs import from_uint8
from qbench.zoo.draws import generator, initialized
from qbench.zoo.garments import TEMPLATES, Garment
from qbench.zoo.latent_networks import clip_tiny
from qbench.zoo.latent_training import caption_tokens
from qbench.zoo.loop import BatchLoss
from qbench.zoo.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CLIP_TINY = TrainingSettings(
    name="clip-tiny",
    iterations=3_000,
    batch=128,
    learning_rate=1e-3,
    warmup=200,
    weight_decay=0.05,
    ema_decay=0.995,
    clip=1.0,
)
"""The recipe of the shipped image-text model."""


def initial_clip(settings: TrainingSettings, vocabulary: int) -> nn.Module:
    """The network before the first iteration, decided by the seed."""
    return initialized(partial(clip_tiny, vocabulary), settings)


def clip_loss(
    images: NDArray[np.uint8], garments: Sequence[Garment], settings: TrainingSettings, tokenizer: CLIPTokenizer
) -> BatchLoss:
    """Cross-entropy of images against captions and captions against images.

    Images that the same words fit share the probability: with ten classes and a few attributes, a batch holds many.

    Args:
        images: Training images [N, 1, 32, 32].
        garments: What is said of each.
        settings: Batch size, seed and device.
        tokenizer: The zoo's tokenizer.
    """
    pixels = from_uint8(torch.from_numpy(images))
    tokens = torch.stack([caption_tokens(garments, template, tokenizer) for template in range(len(TEMPLATES))])

    def loss(model: nn.Module, iteration: int) -> Tensor:
        source = generator(settings.seed, "batch", iteration)
        rows = torch.randint(len(pixels), (settings.batch,), generator=source)
        said = tokens[int(torch.randint(len(tokens), (1,), generator=source)), rows].to(settings.device)
        pictures = pixels[rows].expand(-1, 3, -1, -1).to(settings.device)
        image, text, scale = model(pictures, said)
        agreement = scale * image @ text.T
        fits = (said[:, None] == said[None]).all(dim=2).float()
        target = fits / fits.sum(dim=1, keepdim=True)
        ways = (agreement, agreement.T)
        return sum((-(target * log_softmax(way, dim=1)).sum(dim=1).mean() for way in ways), torch.zeros(())) / 2

    return loss
