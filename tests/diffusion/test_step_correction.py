import pytest
import torch
from torch import Tensor

from qbench.diffusion.noise import INITIAL, Purpose
from qbench.diffusion.noise_schedule import signal_levels
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.samplers import NoiseSource, StepContext, StepCorrection, make_sampler, sample
from qbench.errors import StageError

CPU = torch.device("cpu")
STEPS, CHANNELS = 6, 2
SLOPE = torch.linspace(-0.3, 0.4, STEPS)
BIAS = torch.arange(STEPS * CHANNELS).view(STEPS, CHANNELS) / 10
NONE = torch.zeros(STEPS)


def denoise(x: Tensor, step: StepContext) -> Tensor:
    return torch.tanh(x + step.timestep / 1000)


def worsened(x: Tensor, step: StepContext) -> Tensor:
    return (1 + SLOPE[step.step_index]) * denoise(x, step) + BIAS[step.step_index].view(1, -1, 1, 1)


def source(count: int = 3) -> NoiseSource:
    return NoiseSource((CHANNELS, 2, 2), 0, Purpose.EVALUATION, range(count))


@pytest.mark.parametrize("name", ["ddim", "plms", "euler", "dpm-solver++"])
def test_slope_and_bias_are_taken_back(name: str) -> None:
    steps = STEPS - (name == "plms")
    sampler = make_sampler(ScheduleSettings(), SamplerSettings.model_validate({"name": name, "steps": steps}))
    correction = StepCorrection(SLOPE, BIAS, NONE)
    found = sample(worsened, sampler, source(), CPU, correction=correction)
    torch.testing.assert_close(found, sample(denoise, sampler, source(), CPU), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, sample(worsened, sampler, source(), CPU), atol=0.05)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_sampler_adds_as_much_less_noise_as_the_residual_adds(prediction: str) -> None:
    """One step in closed form: the variances of what comes in with the estimate and of what is added make the whole."""
    schedule = ScheduleSettings.model_validate({"prediction": prediction})
    sampler = make_sampler(schedule, SamplerSettings(steps=STEPS, eta=1.0))
    levels = signal_levels(schedule)[sampler.timesteps]
    alpha, following = float(levels[1]), float(levels[2])
    whole = (1 - following) / (1 - alpha) * (1 - alpha / following)
    weight = (1 - following - whole) ** 0.5 - (following * (1 - alpha) / alpha) ** 0.5
    weight *= alpha**0.5 if prediction == "v_prediction" else 1
    residual = 0.3 * whole / weight**2
    noise, run = source(), sampler.start()
    x = noise.at(INITIAL, CPU)
    silent = torch.zeros_like(x)
    plain, less, none = (run.step(x, silent, 1, noise, each) for each in (0.0, residual, 10 * residual))
    added = noise.at(1, CPU)
    torch.testing.assert_close(plain - less, (1 - 0.7**0.5) * whole**0.5 * added, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain - none, whole**0.5 * added, rtol=1e-4, atol=1e-5)


def test_the_variance_of_a_sample_stays_where_the_residual_can_be_made_room_for() -> None:
    """A denoiser with a known residual, over the step; as many numbers as a variance within 1 % needs."""
    settings = SamplerSettings(steps=STEPS, eta=1.0)
    sampler = make_sampler(ScheduleSettings(), settings)
    noise = NoiseSource((1, 300, 300), 0, Purpose.EVALUATION, range(1))
    residual_noise = torch.randn(1, 1, 300, 300, generator=torch.Generator().manual_seed(1))
    x, run, slope, variance = torch.zeros(1, 1, 300, 300), sampler.start(), 0.25, 0.02
    correction = StepCorrection(torch.full((STEPS,), slope), torch.zeros(STEPS, 1), torch.full((STEPS,), variance))
    output = correction.corrected(variance**0.5 * residual_noise, 2)
    assert correction.residual(2) == pytest.approx(variance / (1 + slope) ** 2)
    expected = float(run.step(x, torch.zeros_like(x), 2, noise).var())
    assert float(run.step(x, output, 2, noise, correction.residual(2)).var()) == pytest.approx(expected, rel=0.01)
    assert float(run.step(x, output, 2, noise).var()) > 1.005 * expected


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_noise_in_x_stays_what_the_schedule_has_there(prediction: str, eta: float) -> None:
    """Where x is sqrt(1 - alpha) times unit noise and the estimate is that noise and a residual, a step is linear.

    So it is if only the added noise becomes less. The authors' code takes the estimate's own share from the reduced
    noise too, which grows by as much: the residual then comes on top.
    """
    schedule = ScheduleSettings.model_validate({"prediction": prediction})
    sampler = make_sampler(schedule, SamplerSettings(steps=STEPS, eta=eta))
    levels = signal_levels(schedule)[sampler.timesteps]
    noise, run = source(), sampler.start()
    one, nothing = torch.ones(3, CHANNELS, 2, 2), torch.zeros(3, CHANNELS, 2, 2)
    for index in range(1, STEPS - 1):
        alpha, following = float(levels[index]), float(levels[index + 1])

        def step(x: Tensor, estimate: Tensor, residual: float = 0.0, index: int = index) -> Tensor:
            return run.step(x, estimate, index, noise, residual)

        def size(found: Tensor, unit: Tensor = one) -> float:
            return float((found / unit).double().mean())

        unit = noise.at(index, CPU)
        weight = size(step(nothing, one) - step(nothing, nothing))
        residual = 0.6 * size(step(nothing, nothing), unit) ** 2 / weight**2
        silent = step(nothing, nothing, residual)
        of_x, of_estimate = (size(step(*each, residual) - silent) for each in ((one, nothing), (nothing, one)))
        share = of_x * (1 - alpha) ** 0.5 + of_estimate * (alpha**0.5 if prediction == "v_prediction" else 1)
        whole = share**2 + of_estimate**2 * residual + size(silent, unit) ** 2
        assert whole == pytest.approx(1 - following, rel=1e-4)


def test_a_correction_for_something_else_is_refused() -> None:
    sampler = make_sampler(ScheduleSettings(), SamplerSettings(steps=STEPS + 1))
    with pytest.raises(StageError, match=r"is for 6 steps and 2 channels, .* calls the denoiser 7 times on 2 channels"):
        sample(denoise, sampler, source(), CPU, correction=StepCorrection(SLOPE, BIAS, NONE))


@pytest.mark.parametrize(
    ("slope", "bias", "variance", "message"),
    [
        (SLOPE[:3], BIAS, NONE, r"these have the shapes \[3\], \[6, 2\], \[6\]"),
        (SLOPE, BIAS[:, 0], NONE, r"\[6\], \[6\], \[6\]"),
        (SLOPE, BIAS, torch.zeros(()), r"\[6\], \[6, 2\], \[\]"),
        (torch.zeros(()), BIAS, NONE, r"\[\], \[6, 2\]"),
        (SLOPE, BIAS * float("nan"), NONE, "not finite"),
        (SLOPE - 1, BIAS, NONE, "slope of at most -1"),
        (SLOPE, BIAS, NONE - 1, "negative variance"),
    ],
)
def test_what_is_no_correction_is_refused(slope: Tensor, bias: Tensor, variance: Tensor, message: str) -> None:
    with pytest.raises(StageError, match=message):
        StepCorrection(slope, bias, variance)
