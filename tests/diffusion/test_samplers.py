from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qbench.diffusion.noise import INITIAL, Purpose, normal
from qbench.diffusion.sampler_settings import SamplerName, SamplerSettings, ScheduleSettings
from qbench.diffusion.samplers import NoiseSource, Sampler, StepContext, make_sampler, sample
from qbench.errors import StageError

CPU = torch.device("cpu")
SCHEDULE = ScheduleSettings()


NAMES: tuple[SamplerName, ...] = ("ddim", "plms", "dpm-solver++", "euler")


def make(steps: int, eta: float = 0.0) -> Sampler:
    return make_sampler(SCHEDULE, SamplerSettings(steps=steps, eta=eta))


def named(name: str, **settings: Any) -> Sampler:
    return make_sampler(SCHEDULE, SamplerSettings.model_validate({"name": name, **settings}))


def source(indices: range = range(4), shape: tuple[int, ...] = (2, 3, 3), seed: int = 0) -> NoiseSource:
    return NoiseSource(shape, seed, Purpose.EVALUATION, indices)


def toy(x: Tensor, step: StepContext) -> Tensor:
    """A smooth function that looks at x and at the timestep, each element by itself."""
    return torch.tanh(0.7 * x + step.timestep / 500 - 1)


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


FLOW = {"ddim": (1000, 0.01), "plms": (200, 0.01), "dpm-solver++": (200, 0.01), "euler": (500, 0.01)}
"""Steps and how near they come to the flow."""


@pytest.mark.parametrize("name", FLOW)
def test_deterministic_sampling_is_the_probability_flow(name: str) -> None:
    """For Gaussian data the flow from T to 0 is affine: it keeps the quantile of every sample."""
    data, noise = GaussianData(), source(range(5), (200,))
    steps, tolerance = FLOW[name]
    sampler = named(name, steps=steps, spacing="linspace")
    assert sampler.timesteps[0] == 999
    alpha = float(data.signal[-1])
    quantile = (noise.at(INITIAL, CPU) - alpha**0.5 * data.mean) / (alpha * data.deviation**2 + 1 - alpha) ** 0.5
    found = sample(data, sampler, noise, CPU)
    torch.testing.assert_close(found, data.mean + data.deviation * quantile, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("plms", 1), ("dpm-solver++", 2)])
def test_more_steps_come_nearer_to_the_flow(name: str, order: int) -> None:
    data, noise = GaussianData(), source(range(5), (200,))
    alpha = float(data.signal[-1])
    quantile = (noise.at(INITIAL, CPU) - alpha**0.5 * data.mean) / (alpha * data.deviation**2 + 1 - alpha) ** 0.5

    def error(steps: int) -> float:
        found = sample(data, named(name, steps=steps, spacing="linspace"), noise, CPU)
        return float((found - data.mean - data.deviation * quantile).abs().mean())

    assert error(80) < error(20) / 4**order * 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_predicting_v_gives_what_predicting_noise_gives(name: str, eta: float) -> None:
    """On an exact denoiser; its v is sqrt(alpha) noise - sqrt(1 - alpha) x_0."""
    data = GaussianData()

    def v(x: Tensor, step: StepContext) -> Tensor:
        alpha = float(data.signal[step.timestep])
        estimate = data(x, step)
        clean = (x - (1 - alpha) ** 0.5 * estimate) / alpha**0.5
        return alpha**0.5 * estimate - (1 - alpha) ** 0.5 * clean

    changes = {"steps": 20, "spacing": "trailing", "eta": eta if name == "ddim" else 0.0}
    expected = sample(data, named(name, **changes), source(), CPU)
    schedule = ScheduleSettings(prediction="v_prediction")
    found = sample(v, make_sampler(schedule, SamplerSettings(name=name, **changes)), source(), CPU)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_alone_is_the_sample_in_a_batch(name: str) -> None:
    sampler = named(name, steps=10)
    whole = sample(toy, sampler, source(range(8)), CPU)
    assert torch.equal(sample(toy, sampler, source(range(3, 4)), CPU), whole[3:4])
    assert whole.dtype == torch.float32
    assert torch.equal(sample(toy, sampler, source(range(8)), CPU), whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_forward_process_does_not_depend_on_the_batch(name: str) -> None:
    clean, noise = (source(seed=seed).at(INITIAL, CPU) for seed in (1, 2))
    sampler = named(name, steps=20)
    whole = sampler.noised(clean, noise, [3, 9, 0, 19])
    assert whole.dtype == torch.float32
    assert torch.equal(sampler.noised(clean[1:3], noise[1:3], [9, 0]), whole[1:3])


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
        assert torch.equal(sampler.start().step(x, toy(x, step), step.step_index, source()), following)


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
