import pytest
import torch
from diffusers import PNDMScheduler
from torch import Tensor

from qbench.diffusion.noise import INITIAL, Purpose
from qbench.diffusion.plms import PLMS
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.samplers import NoiseSource, StepContext, sample

CPU = torch.device("cpu")
STABLE_DIFFUSION = ScheduleSettings(beta_start=0.00085, beta_end=0.012, betas="scaled_linear")


def source() -> NoiseSource:
    return NoiseSource((2, 3, 3), 0, Purpose.EVALUATION, range(4))


def toy(x: Tensor, step: StepContext) -> Tensor:
    """A smooth function that looks at x and at the timestep, each element by itself."""
    return torch.tanh(0.7 * x + step.timestep / 500 - 1)


def settings(steps: int, **changes: object) -> SamplerSettings:
    return SamplerSettings.model_validate({"name": "plms", "steps": steps, **changes})


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        *((steps, {"steps_offset": 1, "final_alpha": "first"}) for steps in (1, 2, 3, 4, 5, 20, 50)),
        (25, {}),
        (20, {"spacing": "trailing"}),
    ],
)
@pytest.mark.parametrize("schedule", [ScheduleSettings(), STABLE_DIFFUSION], ids=["linear", "scaled linear"])
def test_plms_is_that_of_diffusers(schedule: ScheduleSettings, steps: int, changes: dict[str, object]) -> None:
    asked = settings(steps, **changes)
    scheduler = PNDMScheduler(
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=schedule.betas,
        skip_prk_steps=True,
        set_alpha_to_one=asked.final_alpha == "one",
        steps_offset=asked.steps_offset,
        timestep_spacing="leading" if asked.spacing == "uniform" else asked.spacing,
    )
    scheduler.set_timesteps(steps)
    expected = source().at(INITIAL, CPU)
    seen = []
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        seen.append(expected)
        expected = scheduler.step(toy(expected, StepContext(index, timestep)), timestep, expected).prev_sample
    observed: list[Tensor] = []
    sampler = PLMS(schedule, asked)
    found = sample(toy, sampler, source(), CPU, lambda _, x: observed.append(x))
    assert sampler.timesteps.tolist() == scheduler.timesteps.tolist()
    torch.testing.assert_close(torch.stack(observed), torch.stack(seen), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fifty_steps_of_stable_diffusion_are_its_fifty_one_calls() -> None:
    timesteps = PLMS(STABLE_DIFFUSION, settings(50, steps_offset=1)).timesteps.tolist()
    assert timesteps[:4] == [981, 961, 961, 941]
    assert timesteps[-1] == 1
    assert len(timesteps) == 51


def test_runs_share_no_history() -> None:
    sampler = PLMS(STABLE_DIFFUSION, settings(8))
    alone = sample(toy, sampler, source(), CPU)
    one, two = sampler.start(), sampler.start()
    x = y = source().at(INITIAL, CPU)
    for index, timestep in enumerate(sampler.timesteps.tolist()):
        x = one.step(x, toy(x, StepContext(index, timestep)), index, source())
        y = two.step(y, 0.9 * toy(y, StepContext(index, timestep)), index, source())
    assert torch.equal(x, alone)
    assert not torch.equal(x, y)
