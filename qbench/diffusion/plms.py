"""PLMS: DDIM's steps with a multistep estimate of the noise."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qbench.diffusion.ddim import final_level, transferred
from qbench.diffusion.noise_schedule import diffused, noise_of, signal_levels
from qbench.diffusion.noise_source import NoiseSource
from qbench.diffusion.sampler_settings import Prediction, SamplerSettings, ScheduleSettings
from qbench.diffusion.timesteps import sampling_timesteps

_ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the last estimates, the newest first, by how many there are."""


class PLMS:
    """Pseudo linear multistep (Liu et al. 2022, arXiv 2202.09778, equations 11 to 13), as Stable Diffusion uses it.

    The estimate of the noise is a combination of the last four (the linear multistep method of Adams and Bashforth).
    At the beginning, where there are none, the first step is done twice: from the noise with its own estimate, and then
    again with the mean of that and the estimate at the step's end. So n steps are n + 1 calls of the denoiser, and the
    second timestep comes twice; a single step is one call. This is diffusers' ``PNDMScheduler`` with
    ``skip_prk_steps``, other than in two respects: predecessors are found by index, which differs where steps are not
    equally far apart, and v is made noise before it is combined with others.

    Args:
        schedule: the training schedule.
        settings: steps.

    Raises:
        StageError: the steps do not fit the schedule.
    """

    def __init__(self, schedule: ScheduleSettings, settings: SamplerSettings) -> None:
        visited = sampling_timesteps(schedule, settings)
        levels = signal_levels(schedule)
        self.timesteps = np.concatenate([visited[:1], visited[1:2], visited[1:]])
        self._alpha = levels[self.timesteps]
        self._alpha_next = np.append(self._alpha[1:], final_level(levels, settings))
        self._prediction = schedule.prediction
        if len(visited) > 1:
            self._alpha_next[1] = self._alpha[1]  # the second call does the first step again

    def __len__(self) -> int:
        return len(self.timesteps)

    def start(self) -> "PLMSRun":
        """Return a run without history."""
        return PLMSRun(self._alpha, self._alpha_next, self._prediction)

    def noised(self, clean: Tensor, noise: Tensor, indices: Sequence[int]) -> Tensor:
        """Return x at some calls by the forward process."""
        return diffused(clean, noise, self._alpha[list(indices)])


class PLMSRun:
    """PLMS on its way with one batch.

    Args:
        alpha: signal level at each call.
        alpha_next: signal level that the call leads to.
        prediction: what the denoiser predicts.
    """

    def __init__(
        self,
        alpha: NDArray[np.float64],
        alpha_next: NDArray[np.float64],
        prediction: Prediction,
    ) -> None:
        self._alpha = alpha
        self._alpha_next = alpha_next
        self._prediction = prediction
        self._estimates: list[Tensor] = []
        self._beginning: Tensor | None = None

    def initial(self, noise: Tensor) -> Tensor:
        """Return the noise itself."""
        return noise

    def model_input(self, x: Tensor, index: int) -> Tensor:
        """Return x itself."""
        return x

    def step(self, x: Tensor, estimate: Tensor, index: int, noise: NoiseSource, residual: float = 0.0) -> Tensor:
        """Return x at the next call from x at call ``index``, both [batch, *latent shape]; no noise is added."""
        alpha, alpha_next = float(self._alpha[index]), float(self._alpha_next[index])
        found = noise_of(estimate, x, alpha, self._prediction)
        if index == 1:
            assert self._beginning is not None
            start, self._beginning = self._beginning, None
            return transferred(start, (found + self._estimates[0]) / 2, float(self._alpha[0]), alpha_next)
        if index == 0:
            self._beginning = x
        self._estimates = [found, *self._estimates[:3]]
        weights = _ADAMS_BASHFORTH[len(self._estimates) - 1]
        combined = sum(
            (weight * each for weight, each in zip(weights[1:], self._estimates[1:], strict=True)), weights[0] * found
        )
        return transferred(x, combined, alpha, alpha_next)
