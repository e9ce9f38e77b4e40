"""The addressed noise of some samples, on the device that needs it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.diffusion.noise import Purpose, normal


@dataclass(frozen=True)
class NoiseSource:
    """The addressed noise of some samples.

    Attributes:
        shape: shape of one latent.
        seed: the cell's seed.
        purpose: evaluation or calibration.
        indices: sample indices, one for each row of the batch.
    """

    shape: tuple[int, ...]
    seed: int
    purpose: Purpose
    indices: Sequence[int]

    def at(self, step: int, device: torch.device) -> Tensor:
        """Return the noise of a step, float32 [len(indices), *shape].

        The host draws it while a CUDA device still works on what it was given before: nothing here waits for the
        device, and the copy, out of memory that the system may not move, waits in its turn.
        """
        drawn = normal(self.shape, seed=self.seed, purpose=self.purpose, indices=self.indices, step=step)
        noise = torch.from_numpy(drawn)
        if device.type == "cuda":
            return noise.pin_memory().to(device, non_blocking=True)
        return noise.to(device)
