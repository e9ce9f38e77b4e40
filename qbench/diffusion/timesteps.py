"""Which training timesteps a sampler visits."""

import numpy as np
from numpy.typing import NDArray

from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.errors import StageError

Timesteps = NDArray[np.int64]


def sampling_timesteps(schedule: ScheduleSettings, settings: SamplerSettings) -> Timesteps:
    """Return the timesteps of DDIM and PLMS, int64 [steps], the noise end first.

    - ``uniform``: ``T // n`` apart, ending at ``steps_offset``; diffusers' "leading".
    - ``quad``: ``int(linspace(0, sqrt(0.8 T), n)**2)``, as in the code of DDIM and of Q-Diffusion for CIFAR-10. Its low
      end repeats timesteps (0, 0, 0, 0, 1, ... of 100 steps), so a step's predecessor is found by index.
    - ``trailing`` and ``linspace``: as in table 2 of Lin et al. (arXiv 2305.08891) and in diffusers.

    The uniform steps of the code of latent diffusion (CompVis) are these with an offset of 1, where n divides T. Where
    it does not, that code makes more steps than it is asked for: it takes every ``T // n``-th timestep, all the way
    to the noise end. Asked for 400 of 1000, it takes every second one, which are **500** steps: who wants the figures
    that papers give for "400 steps" on LSUN-Churches sets 500 here.

    Raises:
        StageError: the schedule has not that many steps.
    """
    train_steps, steps = schedule.train_steps, settings.steps
    if settings.spacing == "uniform":
        found = leading_timesteps(train_steps, steps) + settings.steps_offset
    elif settings.spacing == "quad":
        found = (np.linspace(0, np.sqrt(train_steps * 0.8), steps) ** 2).astype(np.int64)[::-1].copy()
    elif settings.spacing == "trailing":
        found = np.round(train_steps - np.arange(steps) * (train_steps / steps)).astype(np.int64) - 1
    else:
        found = np.linspace(0, train_steps - 1, steps).round().astype(np.int64)[::-1].copy()
    check_fit(found, schedule, settings)
    return found


def leading_timesteps(train_steps: int, steps: int) -> Timesteps:
    """Return ``steps`` descending timesteps, ``train_steps // steps`` apart, that end at 0.

    Raises:
        StageError: more steps are asked for than the schedule has.
    """
    if steps > train_steps:
        raise StageError(f"{steps} sampling steps do not fit a schedule of {train_steps}: ask for fewer")
    return (np.arange(steps, dtype=np.int64) * (train_steps // steps))[::-1].copy()


def check_fit(timesteps: Timesteps, schedule: ScheduleSettings, settings: SamplerSettings) -> None:
    """Refuse timesteps that are too many, that the schedule has not, or that repeat where the spacing is not quad.

    Raises:
        StageError: they do not fit.
    """
    fits = len(timesteps) == settings.steps and 0 <= int(timesteps.min()) <= int(timesteps.max()) < schedule.train_steps
    if not fits or (settings.spacing != "quad" and bool((np.diff(timesteps) >= 0).any())):
        raise StageError(
            f"{settings.steps} steps of {settings.name!r} with spacing {settings.spacing!r} and steps_offset "
            f"{settings.steps_offset} do not fit a schedule of {schedule.train_steps}: ask for fewer"
        )
