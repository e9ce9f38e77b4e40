"""The loop of every sampler: from noise to latents, with every random number addressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbench.diffusion.noise import INITIAL
from qbench.diffusion.noise_source import NoiseSource
from qbench.diffusion.step_correction import StepCorrection
from qbench.errors import StageError


@dataclass(frozen=True)
class StepContext:
    """Where in the trajectory a denoiser is called.

    Attributes:
        step_index: 0 at the noise end. Steps are told apart by it, since some spacings repeat timesteps.
        timestep: the training timestep that the denoiser is given.
    """

    step_index: int
    timestep: int


class Denoise(Protocol):
    """A noise estimator, or an estimator of v where the schedule says so."""

    def __call__(self, x: Tensor, step: StepContext) -> Tensor:
        """Return the estimate at ``x`` [batch, *latent shape] at a step, in the same shape."""
        ...


class Run(Protocol):
    """A sampler on its way with one batch; what it keeps from step to step belongs to the batch."""

    def initial(self, noise: Tensor) -> Tensor:
        """Return what sampling starts from, made of standard normal noise [batch, *latent shape]."""
        ...

    def model_input(self, x: Tensor, index: int) -> Tensor:
        """Return what the denoiser is given at step ``index``, made of the sampler's own x."""
        ...

    def step(self, x: Tensor, estimate: Tensor, index: int, noise: NoiseSource, residual: float = 0.0) -> Tensor:
        """Return x at the next step.

        Args:
            x: at step ``index`` [batch, *latent shape].
            estimate: the denoiser's output at ``model_input(x, index)``.
            index: the steps come one after the other, from 0.
            noise: for what the sampler adds.
            residual: variance of the noise that the estimate is known to hold; a sampler that adds noise of its own
                adds as much less.
        """
        ...


class Sampler(Protocol):
    """A rule that leads from noise to latents; it is shared by batches, its runs are not.

    Attributes:
        timesteps: of each call of the denoiser, int64 [calls], the noise end first.
    """

    timesteps: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how often the denoiser is called."""
        ...

    def start(self) -> Run:
        """Return a fresh run for one batch."""
        ...

    def noised(self, clean: Tensor, noise: Tensor, indices: Sequence[int]) -> Tensor:
        """Return what the denoiser would be given at some steps if it were real data with noise, q(x_t | x_0).

        Args:
            clean: x_0 [batch, *latent shape].
            noise: standard normal, in the same shape.
            indices: the step of each row.
        """
        ...


def sample(
    denoise: Denoise,
    sampler: Sampler,
    noise: NoiseSource,
    device: torch.device,
    observe: Callable[[StepContext, Tensor], None] | None = None,
    stop: int | None = None,
    correction: StepCorrection | None = None,
) -> Tensor:
    """Run a sampler from its initial noise to the end.

    Args:
        denoise: the noise estimator, guidance included.
        sampler: the sampler.
        noise: which samples, and their noise.
        device: where to compute.
        observe: called before each step with what the denoiser is given there [batch, *latent shape].
        stop: a step to end before; it is the last to be observed, and the denoiser is not called at it.
        correction: of what the denoiser puts out.

    Returns:
        Latents, float32 [batch, *latent shape].

    Raises:
        StageError: the denoiser's output is not finite, and the message names the first such step and sample; or the
            correction is for other steps or latents.
    """
    if correction is not None:
        correction.check(len(sampler), noise.shape[0])
        correction = correction.on(device)
    run = sampler.start()
    x = run.initial(noise.at(INITIAL, device))
    broken_at = torch.full((len(noise.indices),), len(sampler), device=device)
    for index, timestep in enumerate(sampler.timesteps):
        step = StepContext(index, int(timestep))
        given = run.model_input(x, index)
        if observe is not None:
            observe(step, given)
        if index == stop:
            break
        estimate = denoise(given, step)
        broken = ~estimate.flatten(1).isfinite().all(dim=1)
        broken_at = torch.where(broken & (broken_at == len(sampler)), index, broken_at)
        residual = 0.0
        if correction is not None:
            estimate, residual = correction.corrected(estimate, index), correction.residual(index)
        x = run.step(x, estimate, index, noise, residual)
    # One look at the end: asking at every step would make the host wait for the device each time.
    _refuse_broken(broken_at.cpu(), len(sampler), noise)
    return x


def _refuse_broken(broken_at: Tensor, steps: int, noise: NoiseSource) -> None:
    """Refuse samples whose estimate was not finite at a step; ``broken_at`` [batch] is ``steps`` where all were."""
    if bool((broken_at < steps).any()):
        row = int(broken_at.argmin())
        raise StageError(
            f"the denoiser's output is not finite, first at step {int(broken_at[row])} of {steps} "
            f"(sample {noise.indices[row]})"
        )
