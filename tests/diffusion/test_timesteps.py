import numpy as np
import pytest
from diffusers import DDIMScheduler

from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings, Spacing
from qbench.diffusion.timesteps import leading_timesteps, sampling_timesteps
from qbench.errors import StageError

SCHEDULE = ScheduleSettings()
DIFFUSERS_WORDS: dict[Spacing, str] = {"uniform": "leading", "trailing": "trailing", "linspace": "linspace"}


def steps_of(steps: int, spacing: Spacing, offset: int = 0, schedule: ScheduleSettings = SCHEDULE) -> list[int]:
    settings = SamplerSettings(steps=steps, spacing=spacing, steps_offset=offset)
    found = sampling_timesteps(schedule, settings)
    assert found.dtype == np.int64
    return [int(each) for each in found]


@pytest.mark.parametrize("spacing", DIFFUSERS_WORDS)
@pytest.mark.parametrize("steps", [1, 3, 7, 50, 300, 999, 1000])
def test_timesteps_are_those_of_diffusers(steps: int, spacing: Spacing) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing=DIFFUSERS_WORDS[spacing])
    scheduler.set_timesteps(steps)
    assert steps_of(steps, spacing) == scheduler.timesteps.tolist()
    if spacing == "uniform":
        assert leading_timesteps(1000, steps).tolist() == scheduler.timesteps.tolist()


def test_uniform_steps_with_an_offset_are_those_of_latent_diffusion() -> None:
    """Its ``make_ddim_timesteps`` takes every ``T // n``-th timestep and adds 1; asked for 400, it makes 500."""
    for asked, made in ((200, 200), (50, 50), (400, 500)):
        expected = [timestep + 1 for timestep in range(0, 1000, 1000 // asked)]
        assert len(expected) == made
        assert steps_of(made, "uniform", offset=1) == expected[::-1]


def test_quad_steps_are_those_of_q_diffusion_with_their_repetitions() -> None:
    expected = [int(each) for each in np.linspace(0, np.sqrt(1000 * 0.8), 100) ** 2]
    found = steps_of(100, "quad")
    assert found == expected[::-1]
    assert found[-8:] == [3, 2, 2, 1, 0, 0, 0, 0]
    assert found[0] == 800


@pytest.mark.parametrize(
    ("steps", "spacing", "offset"),
    [(101, "uniform", 0), (101, "trailing", 0), (101, "linspace", 0), (100, "uniform", 1), (50, "uniform", 2)],
)
def test_steps_that_the_schedule_has_not_are_refused(steps: int, spacing: Spacing, offset: int) -> None:
    with pytest.raises(StageError, match=r"do not fit a schedule of 100: ask for fewer$"):
        steps_of(steps, spacing, offset, ScheduleSettings(train_steps=100))


def test_as_many_steps_as_the_schedule_has_are_not() -> None:
    short = ScheduleSettings(train_steps=100)
    for spacing in ("uniform", "trailing", "linspace"):
        assert steps_of(100, spacing, schedule=short) == list(range(99, -1, -1))
    assert steps_of(50, "uniform", 1, short)[0] == 99
