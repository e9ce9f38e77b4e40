"""DDIM with any list of steps and any eta."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qbench.diffusion.noise_schedule import diffused, noise_of, signal_levels
from qbench.diffusion.noise_source import NoiseSource
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.timesteps import sampling_timesteps


class DDIM:
    """DDIM (Song et al. 2021, arXiv 2010.02502, equations 12 and 16), no clipping of x_0.

    The predecessor of a step is found by its index in the list, never by its value: spacing ``quad`` repeats timesteps,
    and a step between two equal ones changes nothing. Behind the last step the signal level is 1, as in the code of
    DDIM for CIFAR-10, or with ``final_alpha: first`` that of timestep 0, as in the code of latent diffusion and Stable
    Diffusion (diffusers' ``set_alpha_to_one=False``).

    It keeps nothing from step to step, so it is its own run.

    Args:
        schedule: the training schedule.
        settings: steps and eta.

    Raises:
        StageError: the steps do not fit the schedule.
    """

    def __init__(self, schedule: ScheduleSettings, settings: SamplerSettings) -> None:
        self.timesteps = sampling_timesteps(schedule, settings)
        levels = signal_levels(schedule)
        self._alpha = np.append(levels[self.timesteps], final_level(levels, settings))
        self._eta = settings.eta
        self._prediction = schedule.prediction

    def __len__(self) -> int:
        return len(self.timesteps)

    def start(self) -> "DDIM":
        """Return itself."""
        return self

    def initial(self, noise: Tensor) -> Tensor:
        """Return the noise itself."""
        return noise

    def model_input(self, x: Tensor, index: int) -> Tensor:
        """Return x itself."""
        return x

    def step(self, x: Tensor, estimate: Tensor, index: int, noise: NoiseSource, residual: float = 0.0) -> Tensor:
        """Return x at the next step from x at step ``index``, both [batch, *latent shape].

        Of its own noise it adds so much less that the variance of both together stays, or none (PTQD, arXiv 2305.10657,
        section 3.3).
        """
        alpha, alpha_next = float(self._alpha[index]), float(self._alpha[index + 1])
        variance = self._eta**2 * (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
        x = transferred(x, noise_of(estimate, x, alpha, self._prediction), alpha, alpha_next, variance)
        if residual and self._prediction == "v_prediction":
            residual *= alpha
        added = variance - residual * _weight_of_noise(alpha, alpha_next, variance) ** 2
        if added > 0:
            x = x + added**0.5 * noise.at(index, x.device)
        return x

    def noised(self, clean: Tensor, noise: Tensor, indices: Sequence[int]) -> Tensor:
        """Return x at some steps by the forward process."""
        return diffused(clean, noise, self._alpha[list(indices)])


def final_level(levels: NDArray[np.float64], settings: SamplerSettings) -> float:
    """Return the signal level behind the last step."""
    return 1.0 if settings.final_alpha == "one" else float(levels[0])


def transferred(x: Tensor, noise: Tensor, alpha: float, alpha_next: float, variance: float = 0.0) -> Tensor:
    """Return DDIM's x at another signal level, without the noise of a variance that is still to be added.

    Args:
        x: at signal level ``alpha`` [batch, *latent shape].
        noise: estimate of the noise in it.
        alpha: signal level.
        alpha_next: signal level to go to.
        variance: of the noise that the caller adds.
    """
    clean = (x - (1 - alpha) ** 0.5 * noise) / alpha**0.5
    following: Tensor = alpha_next**0.5 * clean + _direction(alpha_next, variance) * noise
    return following


def _direction(alpha_next: float, variance: float) -> float:
    return float(max(1 - alpha_next - variance, 0.0) ** 0.5)


def _weight_of_noise(alpha: float, alpha_next: float, variance: float) -> float:
    """Return the factor at which noise in the estimate comes into x at the next step."""
    return _direction(alpha_next, variance) - float((alpha_next * (1 - alpha) / alpha) ** 0.5)
