"""Samplers: from noise to latents, with every random number addressed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbench.diffusion.noise import INITIAL, Purpose, normal
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
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
    """A noise estimator."""

    def __call__(self, x: Tensor, step: StepContext) -> Tensor:
        """Return the noise in ``x`` [batch, *latent shape] at a step, in the same shape."""
        ...


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
        """Return the noise of a step, float32 [len(indices), *shape]."""
        drawn = normal(self.shape, seed=self.seed, purpose=self.purpose, indices=self.indices, step=step)
        return torch.from_numpy(drawn).to(device)


class DDIM:
    """DDIM (Song et al. 2021, arXiv 2010.02502, equations 12 and 16), noise prediction, no clipping of x_0.

    Steps are spaced evenly from the noise end, ``T/n`` apart and offset so that the last one is timestep 0
    (diffusers calls this "leading"). The predecessor of a step is found by its index in the list, never by its
    value; behind the last step the signal level is 1.

    Args:
        schedule: the training schedule.
        settings: steps and eta.
    """

    def __init__(self, schedule: ScheduleSettings, settings: SamplerSettings) -> None:
        self.timesteps = leading_timesteps(schedule.train_steps, settings.steps)
        betas = np.linspace(schedule.beta_start, schedule.beta_end, schedule.train_steps, dtype=np.float64)
        signal = np.cumprod(1.0 - betas)
        self._alpha = np.append(signal[self.timesteps], 1.0)
        self._eta = settings.eta

    def __len__(self) -> int:
        return len(self.timesteps)

    def step(self, x: Tensor, noise_estimate: Tensor, index: int, noise: NoiseSource) -> Tensor:
        """Return x at the next step from x at step ``index``, both [batch, *latent shape]."""
        alpha, alpha_next = float(self._alpha[index]), float(self._alpha[index + 1])
        variance = self._eta**2 * (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
        clean = (x - (1 - alpha) ** 0.5 * noise_estimate) / alpha**0.5
        x = alpha_next**0.5 * clean + max(1 - alpha_next - variance, 0.0) ** 0.5 * noise_estimate
        if variance > 0 and index + 1 < len(self):
            x = x + variance**0.5 * noise.at(index, x.device)
        return x

    def noised(self, clean: Tensor, noise: Tensor, indices: Sequence[int]) -> Tensor:
        """Return x at some steps by the forward process q(x_t | x_0) (DDPM, arXiv 2006.11239, equation 4).

        Args:
            clean: x_0 [batch, *latent shape].
            noise: standard normal, in the same shape.
            indices: the step of each row.
        """
        alpha = torch.from_numpy(self._alpha[list(indices)]).view(-1, *[1] * (clean.dim() - 1))
        signal, deviation = (each.sqrt().to(clean) for each in (alpha, 1 - alpha))
        return signal * clean + deviation * noise


def leading_timesteps(train_steps: int, steps: int) -> NDArray[np.int64]:
    """Return ``steps`` descending timesteps, ``train_steps // steps`` apart, that end at 0.

    Raises:
        ValueError: more steps are asked for than the schedule has.
    """
    if steps > train_steps:
        raise ValueError(f"{steps} sampling steps do not fit a schedule of {train_steps}")
    return (np.arange(steps, dtype=np.int64) * (train_steps // steps))[::-1].copy()


def sample(
    denoise: Denoise,
    sampler: DDIM,
    noise: NoiseSource,
    device: torch.device,
    observe: Callable[[StepContext, Tensor], None] | None = None,
    stop: int | None = None,
) -> Tensor:
    """Run a sampler from its initial noise to the end.

    Args:
        denoise: the noise estimator.
        sampler: the sampler.
        noise: which samples, and their noise.
        device: where to compute.
        observe: called before each step with x_t [batch, *latent shape].
        stop: a step to end before; it is the last to be observed, and the denoiser is not called at it.

    Returns:
        Latents, float32 [batch, *latent shape].

    Raises:
        StageError: the denoiser's output is not finite; the message names the first such step and sample.
    """
    x = noise.at(INITIAL, device)
    broken_at = torch.full((len(noise.indices),), len(sampler), device=device)
    for index, timestep in enumerate(sampler.timesteps):
        step = StepContext(index, int(timestep))
        if observe is not None:
            observe(step, x)
        if index == stop:
            break
        estimate = denoise(x, step)
        broken = ~estimate.flatten(1).isfinite().all(dim=1)
        broken_at = torch.where(broken & (broken_at == len(sampler)), index, broken_at)
        x = sampler.step(x, estimate, index, noise)
    # One look at the end: asking at every step would make the host wait for the device each time.
    if bool((broken_at < len(sampler)).any()):
        row = int(broken_at.argmin())
        raise StageError(
            f"the denoiser's output is not finite, first at step {int(broken_at[row])} of {len(sampler)} "
            f"(sample {noise.indices[row]})"
        )
    return x
