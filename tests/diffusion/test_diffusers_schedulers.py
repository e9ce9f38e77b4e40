from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from qbench.diffusion.diffusers_schedulers import DiffusersSampler
from qbench.diffusion.noise import INITIAL, Purpose
from qbench.diffusion.noise_schedule import signal_levels
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.samplers import NoiseSource, StepContext, sample
from qbench.errors import StageError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in the loops by hand

CPU = torch.device("cpu")
STABLE_DIFFUSION = ScheduleSettings(beta_start=0.00085, beta_end=0.012, betas="scaled_linear")
CLASSES = {"dpm-solver++": DPMSolverMultistepScheduler, "euler": EulerDiscreteScheduler}
WORDS = {"uniform": "leading"}


def source() -> NoiseSource:
    return NoiseSource((2, 3, 3), 0, Purpose.EVALUATION, range(4))


def toy(x: Tensor, step: StepContext) -> Tensor:
    """A smooth function that looks at x and at the timestep, each element by itself."""
    return torch.tanh(0.7 * x + step.timestep / 500 - 1)


def settings(name: str, **changes: Any) -> SamplerSettings:
    return SamplerSettings.model_validate({"name": name, "steps": 20, **changes})


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"steps_offset": 1}, {"spacing": "trailing"}, {"steps": 1}, {"steps": 5, "final_alpha": "first"}],
    ids=str,
)
def test_the_loop_is_that_of_diffusers(name: str, prediction: Any, changes: dict[str, Any]) -> None:
    asked = settings(name, **changes)
    schedule = STABLE_DIFFUSION.model_copy(update={"prediction": prediction})
    scheduler = CLASSES[name](
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=schedule.betas,
        prediction_type=prediction,
        timestep_spacing=WORDS.get(asked.spacing, asked.spacing),
        steps_offset=asked.steps_offset,
        final_sigmas_type="zero" if asked.final_alpha == "one" else "sigma_min",
    )
    scheduler.set_timesteps(asked.steps)
    expected = source().at(INITIAL, CPU) * scheduler.init_noise_sigma
    given = []
    for index, timestep in enumerate(scheduler.timesteps):
        given.append(scheduler.scale_model_input(expected, timestep))
        estimate = toy(given[-1], StepContext(index, int(timestep)))
        expected = scheduler.step(estimate, timestep, expected).prev_sample
    observed: list[Tensor] = []
    sampler = DiffusersSampler(schedule, asked)
    found = sample(toy, sampler, source(), CPU, lambda _, x: observed.append(x))
    assert sampler.timesteps.tolist() == scheduler.timesteps.tolist()
    assert sampler.timesteps.dtype == np.int64
    torch.testing.assert_close(torch.stack(observed), torch.stack(given), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_timesteps_are_whole_numbers_where_those_of_diffusers_are_not() -> None:
    scheduler = EulerDiscreteScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(7)
    found = DiffusersSampler(ScheduleSettings(), settings("euler", steps=7, spacing="linspace")).timesteps
    assert found.tolist() == scheduler.timesteps.round().tolist() != scheduler.timesteps.tolist()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("spacing", ["uniform", "trailing", "linspace"])
def test_the_forward_process_gives_what_the_denoiser_would_be_given(name: str, spacing: str) -> None:
    """Of data that are all zero, the sampler's exact denoiser gives x back as noise: its inputs are noised zeros."""
    sampler = DiffusersSampler(STABLE_DIFFUSION, settings(name, spacing=spacing))
    levels = signal_levels(STABLE_DIFFUSION)
    zeros, noise = torch.zeros(4, 2, 3, 3), source().at(INITIAL, CPU)

    def of_zeros(x: Tensor, step: StepContext) -> Tensor:
        return x / float(1 - levels[step.timestep]) ** 0.5

    observed: list[Tensor] = []
    sample(of_zeros, sampler, source(), CPU, lambda _, x: observed.append(x))
    scale = float((observed[0] / noise).mean())
    assert scale == pytest.approx(1, abs=0.2)  # some spacings begin where there is signal left
    for index in (0, 3, 19):
        expected = scale * sampler.noised(zeros, noise, [index] * 4) / float(1 - levels[sampler.timesteps[0]]) ** 0.5
        torch.testing.assert_close(observed[index], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_more_steps_than_fit_are_refused(name: str) -> None:
    with pytest.raises(StageError, match=r"101 steps of .* do not fit a schedule of 100: ask for fewer"):
        DiffusersSampler(ScheduleSettings(train_steps=100), settings(name, steps=101))
