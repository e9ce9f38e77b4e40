"""How fashion-features is trained: a plain classifier of Fashion-MNIST at 16x16."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qbench.diffusion.codecs import from_uint8
from qbench.zoo.draws import generator
from qbench.zoo.loop import BatchLoss
from qbench.zoo.networks import FashionFeatures
from qbench.zoo.settings import TrainingSettings

FASHION_FEATURES = TrainingSettings(
    name="fashion-features",
    iterations=4_000,
    batch=128,
    learning_rate=3e-3,
    warmup=100,
    weight_decay=0.05,
    ema_decay=0.99,
    clip=1.0,
)
"""The recipe of the shipped feature network."""


def initial_classifier(settings: TrainingSettings) -> FashionFeatures:
    """The network before the first iteration, decided by the seed; PyTorch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(settings.seed, "initialization", 0).initial_seed())
        model = FashionFeatures()
    return model.to(settings.device)


def classifier_loss(images: NDArray[np.uint8], labels: NDArray[np.int64], settings: TrainingSettings) -> BatchLoss:
    """Cross-entropy on the batch of an iteration, half of its images mirrored.

    Args:
        images: Training images [N, 1, 16, 16].
        labels: Their classes [N].
        settings: Batch size, seed and device.
    """
    pixels = from_uint8(torch.from_numpy(images))
    classes = torch.from_numpy(labels)

    def loss(model: nn.Module, iteration: int) -> Tensor:
        source = generator(settings.seed, "batch", iteration)
        rows = torch.randint(len(pixels), (settings.batch,), generator=source)
        mirrored = torch.rand((settings.batch, 1, 1, 1), generator=source) < 0.5
        batch = torch.where(mirrored, pixels[rows].flip(-1), pixels[rows])
        return cross_entropy(model(batch.to(settings.device)).logits, classes[rows].to(settings.device))

    return loss
