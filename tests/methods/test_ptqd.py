from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from qbench.bits import BitWidth
from qbench.diffusion.noise import Purpose
from qbench.diffusion.samplers import NoiseSource, StepCorrection, make_sampler, sample
from qbench.diffusion.unet_structure import unet_structure
from qbench.method import UniformSteps
from qbench.plugins import METHODS
from qbench.quant import CalibrationData, QuantModel, WeightRanges, estimate_pairs, set_input_grids, set_weight_grids
from qbench.quant.recipes import ActivationRanges
from qbench.settings import merged, validate
from qbench.workload import SamplerSettings, ScheduleSettings
from qbench_methods.brecq import BRECQ, BRECQSettings
from qbench_methods.ptqd import PTQD, PTQDSettings

Run = Callable[..., Any]
OWN = {
    "calibration": {"per_step": 51},
    "rounding": {"iterations": 10_000, "batch_size": 8},
    "fisher": False,
    "activations": {"samples": 32},
    "step_sizes": {"batch_size": 16},
    "shortcuts": True,
    "attention": True,
    "correction_calibration": {"kind": "uniform-steps", "steps": 1000, "per_step": 1024},
    "slope": "positive",
    "bias": True,
    "variance": True,
}
"""The authors' code, where it is other than BRECQ's."""


class Worsened:
    """A denoiser that is not quantized, with an error of known slope, bias and residual at each step.

    The residual is an oscillation that is too fast to have anything to do with the estimate.
    """

    def __init__(self, model: QuantModel, error: tuple[Tensor, Tensor, Tensor]) -> None:
        self.model, self.error, self.full_precision = model, error, model.full_precision

    def __call__(self, x: Tensor, timesteps: Tensor, context: object, steps: Tensor) -> Tensor:
        estimate = self.model(x, timesteps, {}, steps)
        if not next(iter(self.model.taps.values())).enabled:
            return estimate
        slope, bias, deviation = (each[steps].view(len(x), -1, 1, 1) for each in self.error)
        return (1 + slope) * estimate + bias + deviation * 2**0.5 * torch.sin(997 * x)


SLOPE = torch.tensor([0.1, 0.3, -0.4, -0.2])
BIAS = torch.tensor([[0.2, 0.0], [0.0, 0.0], [-0.3, 0.1], [0.1, 0.2]])
DEVIATION = torch.tensor([0.1, 0.3, 0.02, 0.6])
CORRECTED = {"positive": [0, 1], "both": [0, 1, 2], "none": []}
"""The steps whose slope is taken back. At the last it would make the error larger: dividing raises the residual."""


@pytest.fixture
def worsened(small_model: Run) -> Any:
    return Worsened(small_model("W4A32"), (SLOPE, BIAS, DEVIATION))


@pytest.fixture
def rounded(small_model: Run, small_data: Run) -> QuantModel:
    """Really quantized, round to nearest."""
    model: QuantModel = small_model("W4A6")
    set_weight_grids(model, WeightRanges())
    set_input_grids(model, small_data(), ActivationRanges())
    return model


def errors(model: Any, data: CalibrationData, correction: StepCorrection) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """Return full precision's estimate and its error, without and with the correction, by step."""
    pairs = list(estimate_pairs(model, data))
    full, output, steps = (
        torch.cat([getattr(pair, name) for pair in pairs]) for name in ("full_precision", "quantized", "step_indices")
    )
    found = {}
    for step in steps.unique().tolist():
        of_step, worse = full[steps == step], output[steps == step]
        found[step] = of_step, worse - of_step, correction.corrected(worse, step) - of_step
    return found


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]).double())[0, 1])


def variance_within_channels(error: Tensor) -> float:
    return float(error.transpose(0, 1).flatten(1).double().var(1, correction=0).mean())


@pytest.mark.parametrize("slope", ["none", "positive", "both"])
def test_noise_that_is_known_is_found(worsened: Any, small_data: Run, create: Run, slope: str) -> None:
    data = small_data(6000, calls=4, batch_size=2000)
    found = create(PTQD, slope=slope).correct(worsened, data, BitWidth(4, 32))
    taken = torch.zeros(4)
    taken[CORRECTED[slope]] = SLOPE[CORRECTED[slope]]
    torch.testing.assert_close(found.slope, taken, rtol=0, atol=0.01)
    with worsened.full_precision():
        estimate = worsened(data.x, data.timesteps, {}, data.step_indices).unflatten(0, (-1, 4))
    left = SLOPE - taken
    torch.testing.assert_close(found.bias, BIAS + left[:, None] * estimate.mean((0, 3, 4)), rtol=0, atol=0.02)
    torch.testing.assert_close(
        found.variance, DEVIATION**2 + left**2 * estimate.var((0, 3, 4)).mean(1), rtol=0.05, atol=0.001
    )


def test_what_is_left_has_no_mean_and_nothing_to_do_with_full_precision(
    worsened: Any, rounded: QuantModel, small_data: Run, create: Run
) -> None:
    data, taken = small_data(200, calls=4), 0
    for model in (worsened, rounded):
        correction = create(PTQD, slope="both").correct(model, data, BitWidth(4, 32))
        for step, (full, before, after) in errors(model, data, correction).items():
            assert float(after.mean((0, 2, 3)).abs().max()) < 1e-5 < float(before.mean((0, 2, 3)).abs().max())
            if correction.slope[step]:
                assert abs(correlation(full, after)) < 1e-4 < abs(correlation(full, before))
                taken += 1
            assert correction.residual(step) == pytest.approx(variance_within_channels(after), rel=1e-4)
    assert taken >= 3


@pytest.mark.parametrize("slope", ["none", "positive", "both"])
@pytest.mark.parametrize("bias", [False, True])
def test_no_step_is_made_worse(
    worsened: Any, rounded: QuantModel, small_data: Run, create: Run, slope: str, bias: bool
) -> None:
    data = small_data(200, calls=4)
    for model in (worsened, rounded):
        correction = create(PTQD, slope=slope, bias=bias).correct(model, data, BitWidth(4, 32))
        for _, before, after in errors(model, data, correction).values():
            assert float(after.square().mean()) <= float(before.square().mean()) * (1 + 1e-6)
        if slope == "none":
            assert float(correction.slope.abs().max()) == 0
        elif slope == "positive":
            assert float(correction.slope.min()) == 0
        assert bool(correction.bias.any()) == bias


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("left", [0.0, 1e-9])
def test_a_denoiser_that_has_collapsed_is_not_multiplied_up(
    small_model: Run, small_data: Run, create: Run, left: float, seed: int
) -> None:
    """Its slope is -1, up to rounding, and dividing by what rounding left would be a matter of chance."""
    bias = torch.randn(4, 2, generator=torch.Generator().manual_seed(seed))
    model = Worsened(small_model("W4A32"), (torch.full((4,), left - 1), bias, torch.zeros(4)))
    correction = create(PTQD, slope="both").correct(model, small_data(200, calls=4), BitWidth(4, 32))
    assert float(correction.slope.abs().max()) == 0


def test_each_part_can_be_left_out(worsened: Any, small_data: Run, create: Run) -> None:
    data = small_data(200, calls=4)
    whole, still, none = (
        create(PTQD, slope=slope, bias=rest, variance=rest and slope != "none").correct(worsened, data, BitWidth(4, 32))
        for slope, rest in (("positive", True), ("none", True), ("none", False))
    )
    assert [bool(part.any()) for part in (whole.slope, whole.bias, whole.variance)] == [True] * 3
    assert [bool(part.any()) for part in (still.slope, still.bias, still.variance)] == [False, True, False]
    assert [bool(part.any()) for part in (none.slope, none.bias, none.variance)] == [False] * 3


def test_without_an_error_nothing_is_corrected_and_no_byte_changes(
    small_model: Run, small_data: Run, create: Run, one_thread: None
) -> None:
    model = small_model("W4A8")
    correction = create(PTQD, slope="both").correct(model, small_data(calls=4), BitWidth(4, 8))
    assert not any(bool(part.any()) for part in (correction.slope, correction.bias, correction.variance))
    sampler = make_sampler(ScheduleSettings(), SamplerSettings(steps=4, eta=1.0))
    noise = NoiseSource((2, 4, 4), 0, Purpose.EVALUATION, range(3))

    def denoise(x: Tensor, step: Any) -> Tensor:
        return model(x, torch.full((len(x),), step.timestep))

    with torch.no_grad():
        plain, corrected = (
            sample(denoise, sampler, noise, torch.device("cpu"), correction=each) for each in (None, correction)
        )
    assert torch.equal(plain, corrected)


def test_steps_that_were_left_out_take_after_their_nearest(worsened: Any, small_data: Run, create: Run) -> None:
    data = small_data(200, calls=7)
    data = data.rows((data.step_indices % 3 == 0).nonzero().squeeze(1))  # the first and the fourth of seven steps
    found = create(PTQD, slope="both").correct(worsened, data, BitWidth(4, 32))
    assert found.bias.shape == (7, 2)
    for part in (found.slope, found.bias, found.variance):
        assert torch.equal(part, part[[0, 0, 3, 3, 3, 3, 3]])
        assert not torch.equal(part[0], part[3])


def test_what_is_corrected_are_guided_estimates(worsened: Any, small_data: Run, create: Run) -> None:
    data = replace(small_data(800, calls=4), step_indices=torch.arange(800) // 2 % 4, guidance_scale=3.0)
    found = create(PTQD, slope="both").correct(worsened, data, BitWidth(4, 32))
    torch.testing.assert_close(found.slope[:3], SLOPE[:3], rtol=0, atol=0.05)
    assert float(found.variance[0]) == pytest.approx(float(DEVIATION[0]) ** 2 * (3**2 + 2**2), rel=0.1)
    for step, (_, _, after) in errors(worsened, data, found).items():
        assert found.residual(step) == pytest.approx(variance_within_channels(after), rel=1e-4)


def test_defaults_are_those_of_the_authors() -> None:
    brecq = BRECQSettings().model_dump(mode="json")
    assert PTQDSettings().model_dump(mode="json") == merged(brecq, OWN)


def test_presets_are_parts_of_its_settings() -> None:
    defaults = PTQDSettings().model_dump(mode="json")
    found = {name: validate(PTQDSettings, merged(defaults, preset), str) for name, preset in PTQD.presets.items()}
    assert list(found) == ["strict", "as-published", "fast"]
    assert found["strict"] == PTQDSettings()
    assert found["as-published"] == PTQDSettings(shortcuts=False, attention=False)
    fast = merged(defaults, {**BRECQ.presets["fast"], "correction_calibration": {"per_step": 256}})
    assert found["fast"].model_dump(mode="json") == fast


def test_its_model_is_that_of_brecq_without_fisher_weights(end_to_end: Run, create: Run) -> None:
    same = {"activations": {"samples": 32}, "rounding": {"batch_size": 8}}
    found, wanted = end_to_end(create(PTQD, **same)), end_to_end(create(BRECQ, fisher=False, **same))
    assert found.model.left_out() == []
    assert all(torch.equal(found.integers()[name], integers) for name, integers in wanted.integers().items())
    for name, tap in wanted.model.taps.items():
        assert torch.equal(found.model.taps[name].grid.scale, tap.grid.scale)


def test_as_published_shortcuts_downsamplers_and_the_operands_of_attention_are_left_out(
    create: Run, small_data: Run, one_thread: None
) -> None:
    unet = UNet2DModel(
        sample_size=4,
        in_channels=2,
        out_channels=2,
        layers_per_block=1,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    unet.eval().requires_grad_(False)
    model = QuantModel(unet, unet_structure(unet), BitWidth.parse("W3A8"))
    quick = {"rounding": {"iterations": 1}, "step_sizes": {"iterations": 1}}
    method = create(PTQD, **merged(PTQD.presets["as-published"], quick))
    method.quantize_weights(model, small_data(), model.bits)
    method.quantize_activations(model, small_data(), model.bits)
    shortcuts = [name for name in model.layers if name.endswith("conv_shortcut")]
    assert len(shortcuts) == 4
    kept = [*shortcuts, "down_blocks.0.downsamplers.0.conv"]
    operands = [f"{name}.{operand}" for name in model.attentions for operand in ("q", "k", "softmax", "v")]
    assert sorted(model.left_out()) == sorted([*kept, *operands])
    assert all(model.taps[name].grid is None for name in kept)


def test_bits_for_a_softmax_that_is_left_out_are_refused(create: Run) -> None:
    bits = BitWidth.parse("W4A8S16")
    assert create(PTQD).refusal(bits) is None
    assert create(PTQD, attention=False).refusal(bits) == (
        "ptqd leaves attention in full precision (attention: false), so its softmax output cannot have 16 bits"
    )


def test_the_noise_is_measured_at_all_steps(create: Run) -> None:
    method = create(PTQD, calibration={"steps": 5, "per_step": 8})
    assert method.calibration("weights") == method.calibration("activations") == UniformSteps(steps=5, per_step=8)
    asked = method.calibration("correction")
    assert asked == UniformSteps(steps=1000, per_step=1024)
    assert asked.step_indices(30) == list(range(30))


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("ptqd") is PTQD
