"""Addressed randomness for training: what iteration i draws does not depend on how the run came to iteration i."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qbench.zoo.settings import TrainingSettings


def generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """A fresh CPU generator that belongs to one address.

    Args:
        seed: Seed of the whole training run.
        purpose: What the numbers are for; different purposes never share a stream.
        index: Iteration (or any other counter) within the purpose.
    """
    digest = hashlib.sha256(f"qbench.zoo/{seed}/{purpose}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def stratified_timesteps(count: int, steps: int, source: torch.Generator) -> Tensor:
    """Uniform timesteps, one in each of `count` equal parts of the schedule.

    Each timestep is uniform over the schedule as a whole, but a batch covers it evenly, so the loss of a batch
    varies less (the low-discrepancy sampler of Kingma et al. 2021, Variational Diffusion Models, appendix I.1,
    with independent jitter).

    Returns:
        Integer timesteps [count] in [0, steps).
    """
    jitter = torch.rand(count, generator=source, dtype=torch.float64)
    positions = (torch.arange(count, dtype=torch.float64) + jitter) / count
    return (positions * steps).long().clamp_(max=steps - 1)


def initialized(build: Callable[[], nn.Module], settings: TrainingSettings) -> nn.Module:
    """A network before the first iteration, decided by the seed; PyTorch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(settings.seed, "initialization", 0).initial_seed())
        return build().to(settings.device)
