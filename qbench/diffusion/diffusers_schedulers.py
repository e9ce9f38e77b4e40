"""Samplers that are schedulers of diffusers: DPM-Solver++ and Euler."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from numpy.typing import NDArray
from torch import Tensor

from qbench.diffusion.noise_schedule import diffused, signal_levels
from qbench.diffusion.noise_source import NoiseSource
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.timesteps import check_fit

SPACINGS = {"uniform": "leading", "trailing": "trailing", "linspace": "linspace"}
"""diffusers' words for the spacings. Which timesteps they come to is each scheduler's own affair: those of DPM-Solver++
are n of n + 1, without the last."""


class DiffusersSampler:
    """A deterministic scheduler of diffusers.

    - ``dpm-solver++``: the second-order multistep solver (Lu et al. 2022, arXiv 2211.01095, algorithm 2).
    - ``euler``: the method of Euler on the probability flow (Karras et al. 2022, arXiv 2206.00364, algorithm 2 without
      noise). Its own x is larger than the denoiser's input, the variance-preserving x_t, by sqrt(1 + sigma**2).

    Schedulers keep the history of a batch, so each run has one of its own.

    Args:
        schedule: the training schedule.
        settings: name and steps.

    Raises:
        StageError: the steps do not fit the schedule.
    """

    def __init__(self, schedule: ScheduleSettings, settings: SamplerSettings) -> None:
        with warnings.catch_warnings():
            # numpy 2 would like another signature of torch's __array__, which diffusers calls on the way.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            self._template = self._ready(schedule, settings)
        self.timesteps: NDArray[np.int64] = self._template.timesteps.long().numpy()
        check_fit(self.timesteps, schedule, settings)
        self._alpha = signal_levels(schedule)[self.timesteps]

    @staticmethod
    def _ready(schedule: ScheduleSettings, settings: SamplerSettings) -> Any:
        scheduler = _CLASSES[settings.name](
            num_train_timesteps=schedule.train_steps,
            beta_start=schedule.beta_start,
            beta_end=schedule.beta_end,
            beta_schedule=schedule.betas,
            prediction_type=schedule.prediction,
            timestep_spacing=SPACINGS[settings.spacing],
            steps_offset=settings.steps_offset,
            final_sigmas_type="zero" if settings.final_alpha == "one" else "sigma_min",
        )
        scheduler.set_timesteps(settings.steps)
        whole = scheduler.timesteps.double().round()
        if not whole.equal(scheduler.timesteps.double()):
            # Euler's own linspace; a denoiser here is called at timesteps that it was trained at.
            scheduler.set_timesteps(timesteps=whole.long().tolist())
        scheduler.set_begin_index(0)
        return scheduler

    def __len__(self) -> int:
        return len(self.timesteps)

    def start(self) -> "DiffusersRun":
        """Return a run with a fresh scheduler."""
        return DiffusersRun(copy.deepcopy(self._template))

    def noised(self, clean: Tensor, noise: Tensor, indices: Sequence[int]) -> Tensor:
        """Return the denoiser's input at some steps by the forward process."""
        return diffused(clean, noise, self._alpha[list(indices)])


class DiffusersRun:
    """A scheduler on its way with one batch.

    Args:
        scheduler: with its timesteps set, used by nobody else.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def initial(self, noise: Tensor) -> Tensor:
        """Return the noise in the scheduler's own scale."""
        return noise * float(self._scheduler.init_noise_sigma)

    def model_input(self, x: Tensor, index: int) -> Tensor:
        """Return x_t in the scale that the denoiser was trained with."""
        scaled: Tensor = self._scheduler.scale_model_input(x, self._scheduler.timesteps[index])
        return scaled

    def step(self, x: Tensor, estimate: Tensor, index: int, noise: NoiseSource, residual: float = 0.0) -> Tensor:
        """Return x at the next step from x at step ``index``, both [batch, *latent shape]; no noise is added."""
        following: Tensor = self._scheduler.step(estimate, self._scheduler.timesteps[index], x, return_dict=False)[0]
        return following


_CLASSES: dict[str, Callable[..., Any]] = {
    "dpm-solver++": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}
