from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from qbench.diffusion.ddim import DDIM
from qbench.diffusion.noise import INITIAL, Purpose
from qbench.diffusion.noise_schedule import signal_levels
from qbench.diffusion.sampler_settings import FinalAlpha, SamplerSettings, ScheduleSettings, Spacing
from qbench.diffusion.samplers import NoiseSource, StepContext, sample

CPU = torch.device("cpu")
SCHEDULE = ScheduleSettings()
STABLE_DIFFUSION = ScheduleSettings(beta_start=0.00085, beta_end=0.012, betas="scaled_linear")


def source(shape: tuple[int, ...] = (2, 3, 3), count: int = 4) -> NoiseSource:
    return NoiseSource(shape, 0, Purpose.EVALUATION, range(count))


def toy(x: Tensor, step: StepContext) -> Tensor:
    """A smooth function that looks at x and at the timestep, each element by itself."""
    return torch.tanh(0.7 * x + step.timestep / 500 - 1)


def reference(schedule: ScheduleSettings, settings: SamplerSettings, noise: NoiseSource) -> Tensor:
    """The same trajectory by diffusers."""
    scheduler = DDIMScheduler(
        num_train_timesteps=schedule.train_steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=schedule.betas,
        prediction_type=schedule.prediction,
        timestep_spacing={"uniform": "leading"}.get(settings.spacing, settings.spacing),
        set_alpha_to_one=settings.final_alpha == "one",
        clip_sample=False,
        steps_offset=settings.steps_offset,
    )
    scheduler.set_timesteps(settings.steps)
    x = noise.at(INITIAL, CPU)
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        estimate = toy(x, StepContext(index, timestep))
        added = noise.at(index, CPU)
        x = scheduler.step(estimate, timestep, x, eta=settings.eta, variance_noise=added).prev_sample
    return x


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings(steps=1),
        SamplerSettings(steps=2),
        SamplerSettings(steps=7),
        SamplerSettings(steps=50),
        SamplerSettings(steps=20, eta=0.3),
        SamplerSettings(steps=20, eta=1.0),
        SamplerSettings(steps=20, steps_offset=1, final_alpha="first"),
        SamplerSettings(steps=20, steps_offset=1, final_alpha="first", eta=1.0),
        SamplerSettings(steps=50, spacing="trailing", eta=0.5),
    ],
    ids=lambda settings: settings.model_dump_json(exclude={"name"}),
)
@pytest.mark.parametrize(
    "schedule",
    [
        SCHEDULE,
        STABLE_DIFFUSION,
        ScheduleSettings(train_steps=500, beta_start=0.0005, beta_end=0.03),
        STABLE_DIFFUSION.model_copy(update={"prediction": "v_prediction"}),
    ],
    ids=["linear", "scaled linear", "short", "v"],
)
def test_ddim_is_that_of_diffusers(schedule: ScheduleSettings, settings: SamplerSettings) -> None:
    ours = sample(toy, DDIM(schedule, settings), source(), CPU)
    torch.testing.assert_close(ours, reference(schedule, settings, source()), rtol=1e-5, atol=1e-5)


class GaussianData:
    """The exact denoiser of data from N(mean, deviation**2), each element by itself."""

    mean, deviation = 0.7, 0.4

    def __call__(self, x: Tensor, step: StepContext) -> Tensor:
        alpha = float(signal_levels(SCHEDULE)[step.timestep])
        variance = alpha * self.deviation**2 + 1 - alpha
        return (1 - alpha) ** 0.5 * (x - alpha**0.5 * self.mean) / variance


@pytest.mark.parametrize("final_alpha", ["one", "first"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("steps", "spacing"), [(100, "quad"), (20, "quad"), (30, "linspace"), (30, "trailing")])
def test_gaussian_data_in_closed_form(steps: int, spacing: Spacing, eta: float, final_alpha: FinalAlpha) -> None:
    """For Gaussian data each step multiplies the distance from the mean by a number and adds noise.

    The clean image that the exact denoiser sees is m + (x - sqrt(a) m) sqrt(a) s**2 / V with V = a s**2 + 1 - a; so x
    minus sqrt(a) m becomes itself times (sqrt(a a') s**2 + sqrt((1 - a' - sigma**2) (1 - a))) / V, plus sigma z.
    """
    data, noise, settings = GaussianData(), source(), SamplerSettings(steps=steps, spacing=spacing, eta=eta)
    settings = settings.model_copy(update={"final_alpha": final_alpha})
    levels = signal_levels(SCHEDULE)
    if spacing == "quad":
        visited = [int(each) for each in np.linspace(0, np.sqrt(800), steps) ** 2][::-1]
        assert (len(set(visited)) < steps) == (steps == 100)  # it repeats timesteps at its low end
    else:
        visited = DDIM(SCHEDULE, settings).timesteps.tolist()
    alphas = [*levels[visited], 1.0 if final_alpha == "one" else levels[0]]
    distance = noise.at(INITIAL, CPU).double() - alphas[0] ** 0.5 * data.mean
    for index, (now, after) in enumerate(pairwise(alphas)):
        sigma2 = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
        direction = max(1 - after - sigma2, 0) ** 0.5
        factor = (now * after) ** 0.5 * data.deviation**2 + direction * (1 - now) ** 0.5
        distance = distance * factor / (now * data.deviation**2 + 1 - now)
        distance = distance + sigma2**0.5 * noise.at(index, CPU).double()
    found = sample(data, DDIM(SCHEDULE, settings), noise, CPU).double()
    torch.testing.assert_close(found, distance + alphas[-1] ** 0.5 * data.mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("steps", "eta"), [(250, 0.0), (500, 0.5), (1000, 1.0)])
def test_gaussian_data_come_out_with_their_mean_and_deviation(steps: int, eta: float) -> None:
    """Up to the discretization, whose share is 1 to 1.5 % of the deviation at these steps."""
    data = GaussianData()
    found = sample(data, DDIM(SCHEDULE, SamplerSettings(steps=steps, eta=eta)), source((1000,), 10), CPU)
    assert float(found.mean()) == pytest.approx(data.mean, abs=4 * data.deviation / 100 + 0.005)
    assert float(found.std()) == pytest.approx(data.deviation, rel=0.04)


def test_a_step_between_equal_timesteps_changes_nothing() -> None:
    sampler = DDIM(SCHEDULE, SamplerSettings(steps=100, spacing="quad", eta=1.0))
    assert sampler.timesteps[-4:].tolist() == [0, 0, 0, 0]
    x, estimate = source().at(INITIAL, CPU), source().at(5, CPU)
    torch.testing.assert_close(sampler.step(x, estimate, 97, source()), x, rtol=1e-6, atol=1e-6)


def test_the_forward_process_is_that_of_diffusers() -> None:
    scheduler = DDIMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    clean, noise = source().at(1, CPU), source().at(2, CPU)
    sampler, indices = DDIM(SCHEDULE, SamplerSettings(steps=20)), [0, 7, 7, 19]
    expected = scheduler.add_noise(clean, noise, torch.from_numpy(sampler.timesteps[indices]))
    torch.testing.assert_close(sampler.noised(clean, noise, indices), expected, rtol=1e-4, atol=1e-6)
