import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from qbench.diffusion.noise import INITIAL, Purpose, normal
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.samplers import DDIM, NoiseSource, StepContext, leading_timesteps, sample
from qbench.errors import StageError

CPU = torch.device("cpu")
SCHEDULE = ScheduleSettings()


def make(steps: int, eta: float = 0.0, schedule: ScheduleSettings = SCHEDULE) -> DDIM:
    return DDIM(schedule, SamplerSettings(steps=steps, eta=eta))


def source(indices: range = range(4), shape: tuple[int, ...] = (2, 3, 3), seed: int = 0) -> NoiseSource:
    return NoiseSource(shape, seed, Purpose.EVALUATION, indices)


def toy(x: Tensor, step: StepContext) -> Tensor:
    """A smooth function that looks at x and at the timestep, each element by itself."""
    return torch.tanh(0.7 * x + step.timestep / 500 - 1)


def reference(steps: int, eta: float, noise: NoiseSource, schedule: ScheduleSettings = SCHEDULE) -> Tensor:
    """The same trajectory by diffusers."""
    scheduler = DDIMScheduler(
        num_train_timesteps=schedule.train_steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="linear",
        timestep_spacing="leading",
        set_alpha_to_one=True,
        clip_sample=False,
        steps_offset=0,
    )
    scheduler.set_timesteps(steps)
    x = noise.at(INITIAL, CPU)
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        estimate = toy(x, StepContext(index, timestep))
        x = scheduler.step(estimate, timestep, x, eta=eta, variance_noise=noise.at(index, CPU)).prev_sample
    return x


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_ddim_is_that_of_diffusers(steps: int) -> None:
    ours = sample(toy, make(steps), source(), CPU)
    torch.testing.assert_close(ours, reference(steps, 0.0, source()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_noise_is_added_with_the_variance_of_diffusers(eta: float) -> None:
    ours = sample(toy, make(20, eta), source(), CPU)
    torch.testing.assert_close(ours, reference(20, eta, source()), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, sample(toy, make(20), source(), CPU), atol=0.1)


def test_another_schedule_is_that_of_diffusers() -> None:
    schedule = ScheduleSettings(train_steps=100, beta_start=0.001, beta_end=0.2)
    ours = sample(toy, make(9, schedule=schedule), source(), CPU)
    torch.testing.assert_close(ours, reference(9, 0.0, source(), schedule), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 7, 50, 300, 999, 1000])
def test_timesteps_are_those_of_diffusers(steps: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    assert leading_timesteps(1000, steps).tolist() == scheduler.timesteps.tolist()


def test_more_steps_than_the_schedule_has_are_refused() -> None:
    with pytest.raises(ValueError, match="101 sampling steps do not fit a schedule of 100"):
        leading_timesteps(100, 101)
    with pytest.raises(ValueError, match="do not fit"):
        make(101, schedule=ScheduleSettings(train_steps=100))
    assert leading_timesteps(100, 100).tolist() == list(range(99, -1, -1))


class GaussianData:
    """The exact denoiser of data from N(mean, deviation**2), each element by itself."""

    mean, deviation = 0.7, 0.4

    def __init__(self) -> None:
        betas = np.linspace(SCHEDULE.beta_start, SCHEDULE.beta_end, SCHEDULE.train_steps)
        self.signal = np.cumprod(1 - betas)

    def __call__(self, x: Tensor, step: StepContext) -> Tensor:
        alpha = float(self.signal[step.timestep])
        variance = alpha * self.deviation**2 + 1 - alpha
        return (1 - alpha) ** 0.5 * (x - alpha**0.5 * self.mean) / variance


@pytest.mark.parametrize(("steps", "eta"), [(250, 0.0), (500, 0.5), (1000, 1.0)])
def test_gaussian_data_come_out_with_their_mean_and_deviation(steps: int, eta: float) -> None:
    """Up to the discretization, whose share is 1 to 1.5 % of the deviation at these steps."""
    data = GaussianData()
    found = sample(data, make(steps, eta), source(range(10), (1000,)), CPU)
    assert float(found.mean()) == pytest.approx(data.mean, abs=4 * data.deviation / 100 + 0.005)
    assert float(found.std()) == pytest.approx(data.deviation, rel=0.04)


def test_deterministic_sampling_is_the_probability_flow() -> None:
    """For Gaussian data the flow from T to 0 is affine: it keeps the quantile of every sample."""
    data, noise = GaussianData(), source(range(5), (200,))
    alpha = float(data.signal[-1])
    quantile = (noise.at(INITIAL, CPU) - alpha**0.5 * data.mean) / (alpha * data.deviation**2 + 1 - alpha) ** 0.5
    found = sample(data, make(1000), noise, CPU)
    torch.testing.assert_close(found, data.mean + data.deviation * quantile, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_sample_does_not_depend_on_its_batch(eta: float) -> None:
    whole = sample(toy, make(10, eta), source(range(8)), CPU)
    assert torch.equal(sample(toy, make(10, eta), source(range(3, 5)), CPU), whole[3:5])
    assert whole.dtype == torch.float32


def test_seed_and_purpose_decide_the_noise() -> None:
    first = sample(toy, make(3), source(), CPU)
    assert not torch.equal(sample(toy, make(3), source(seed=1), CPU), first)
    calibration = NoiseSource((2, 3, 3), 0, Purpose.CALIBRATION, range(4))
    assert not torch.equal(sample(toy, make(3), calibration, CPU), first)


def test_noise_at_a_step_is_the_addressed_one() -> None:
    noise = source(range(5, 7))
    for step in (INITIAL, 0, 3):
        addressed = normal((2, 3, 3), seed=0, purpose=Purpose.EVALUATION, indices=[5, 6], step=step)
        np.testing.assert_array_equal(noise.at(step, CPU).numpy(), addressed)


def test_every_step_is_told_by_index_and_timestep() -> None:
    called: list[StepContext] = []
    observed: list[tuple[StepContext, Tensor]] = []

    def denoise(x: Tensor, step: StepContext) -> Tensor:
        called.append(step)
        return toy(x, step)

    sampler = make(4)
    final = sample(denoise, sampler, source(), CPU, lambda step, x: observed.append((step, x.clone())))
    assert called == [StepContext(0, 750), StepContext(1, 500), StepContext(2, 250), StepContext(3, 0)]
    assert [step for step, _ in observed] == called
    assert len(sampler) == 4
    assert torch.equal(observed[0][1], source().at(INITIAL, CPU))
    for (step, x), (_, following) in zip(observed, [*observed[1:], (None, final)], strict=True):
        assert torch.equal(sampler.step(x, toy(x, step), step.step_index, source()), following)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_the_first_step_and_sample_that_break_are_named(broken: float) -> None:
    breaks = {11: 5, 12: 3, 13: 3}

    def denoise(x: Tensor, step: StepContext) -> Tensor:
        estimate = toy(x, step)
        for sample_index, at in breaks.items():
            if step.step_index == at:
                estimate[sample_index - 10, 0, 1, 1] = broken
        return estimate

    with pytest.raises(StageError, match=r"first at step 3 of 8 \(sample 12\)"):
        sample(denoise, make(8), source(range(10, 15)), CPU)


@pytest.mark.parametrize("step_index", [0, 7])
def test_the_first_and_the_last_step_are_looked_at(step_index: int) -> None:
    def denoise(x: Tensor, step: StepContext) -> Tensor:
        return torch.full_like(x, float("nan")) if step.step_index == step_index else toy(x, step)

    with pytest.raises(StageError, match=rf"first at step {step_index} of 8 \(sample 10\)"):
        sample(denoise, make(8), source(range(10, 12)), CPU)


class TestForwardProcess:
    def test_it_is_that_of_diffusers(self) -> None:
        scheduler = DDIMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
        clean, noise = (source(seed=seed).at(INITIAL, CPU) for seed in (1, 2))
        sampler, indices = make(20), [0, 7, 7, 19]
        timesteps = torch.from_numpy(sampler.timesteps[indices])
        expected = scheduler.add_noise(clean, noise, timesteps)
        torch.testing.assert_close(sampler.noised(clean, noise, indices), expected, rtol=1e-4, atol=1e-6)

    def test_a_row_does_not_depend_on_its_batch(self) -> None:
        clean, noise = (source(seed=seed).at(INITIAL, CPU) for seed in (1, 2))
        whole = make(20).noised(clean, noise, [3, 9, 0, 19])
        assert whole.dtype == torch.float32
        assert torch.equal(make(20).noised(clean[1:3], noise[1:3], [9, 0]), whole[1:3])


@pytest.mark.parametrize("stop", [0, 3, 7])
def test_a_run_that_ends_before_a_step_has_seen_it_and_not_called_the_denoiser(stop: int) -> None:
    called: list[int] = []
    observed: list[Tensor] = []

    def denoise(x: Tensor, step: StepContext) -> Tensor:
        called.append(step.step_index)
        return toy(x, step)

    whole: list[Tensor] = []
    sample(toy, make(8, 0.5), source(), CPU, lambda _, x: whole.append(x.clone()))
    found = sample(denoise, make(8, 0.5), source(), CPU, lambda _, x: observed.append(x.clone()), stop=stop)
    assert called == list(range(stop))
    assert len(observed) == stop + 1
    assert all(torch.equal(one, other) for one, other in zip(observed, whole, strict=False))
    assert torch.equal(found, whole[stop])


def test_what_breaks_before_the_end_of_such_a_run_is_noticed() -> None:
    def denoise(x: Tensor, step: StepContext) -> Tensor:
        return torch.full_like(x, float("nan")) if step.step_index == 2 else toy(x, step)

    with pytest.raises(StageError, match="first at step 2 of 8"):
        sample(denoise, make(8), source(), CPU, stop=3)
    sample(denoise, make(8), source(), CPU, stop=2)


def test_samples_need_not_be_neighbours() -> None:
    whole = sample(toy, make(5, 1.0), source(range(8)), CPU)
    chosen = NoiseSource((2, 3, 3), 0, Purpose.EVALUATION, [6, 1, 3])
    assert torch.equal(sample(toy, make(5, 1.0), chosen, CPU), whole[[6, 1, 3]])
