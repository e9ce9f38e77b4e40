from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.bits import BitWidth
from qbench.diffusion.structures import DIFFUSERS_UNET
from qbench.errors import SettingsError, StageError
from qbench.method import UniformSteps
from qbench.plugins import METHODS
from qbench.quant import (
    AffineGrid,
    StepGrid,
    WeightRanges,
    learn_rounding,
    mse_per_channel,
    set_weight_grids,
    time_layers,
)
from qbench.quant.recipes import FAST_ROUNDING, FAST_SAMPLES
from qbench.settings import merged, validate
from qbench_methods.tfmq_dm import TFMQDM, TFMQDMSettings

Run = Callable[..., Any]
STEPS = 4
LEFT_OUT = {
    "conv_in",
    "conv_out",
    "time_embedding.linear_1",
    "up_blocks.0.resnets.0.conv_shortcut",
    "up_blocks.0.resnets.1.conv_shortcut",
}
UNROUNDED = {"time_embedding.linear_2", "down_blocks.0.resnets.0.conv1"}


def test_defaults_are_those_of_the_authors() -> None:
    found = TFMQDMSettings()
    assert found.calibration == UniformSteps(steps=20, per_step=256)
    assert found.activation_calibration == UniformSteps(steps=1000, per_step=256)
    assert (found.weights.estimator, found.weights.symmetric, found.weights.candidates) == ("mse", False, 80)
    rounding = {"iterations": 20_000, "batch_size": 32, "learning_rate": 1e-3, "regularizer": 0.01, "warm_up": 0.2}
    assert found.rounding.model_dump().items() >= rounding.items()
    activations = {"estimator": "running-average", "symmetric": False, "momentum": 0.95, "granularity": "step"}
    assert found.activations.model_dump().items() >= activations.items()
    assert (found.averaged_rows, found.step_ranges, found.time_path) == (16, "all", True)


def test_presets_are_parts_of_its_settings() -> None:
    defaults = TFMQDMSettings().model_dump(mode="json")
    found = {name: validate(TFMQDMSettings, merged(defaults, part), str) for name, part in TFMQDM.presets.items()}
    assert list(found) == ["strict", "as-published", "fast"]
    assert found["strict"] == TFMQDMSettings()
    assert found["as-published"] == TFMQDMSettings(shortcuts=False, ends=False)
    assert found["fast"].calibration == UniformSteps(per_step=FAST_SAMPLES)
    assert found["fast"].activation_calibration == UniformSteps(steps=1000, per_step=FAST_SAMPLES)
    assert found["fast"].rounding.model_dump().items() >= FAST_ROUNDING.items()


def test_everything_is_quantized_and_nothing_left_out(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(TFMQDM))
    assert outcome.model.left_out() == []
    for target in ("weights", "activations"):
        assert sum(outcome.shares[target]) == pytest.approx(1)


def test_weights_are_learned_from_ranges_of_least_error_the_time_path_first(
    end_to_end: Run, create: Run, small_data: Run
) -> None:
    outcome, method = end_to_end(create(TFMQDM)), create(TFMQDM)
    wanted, shares, names = outcome.start(), list[float](), list[str]()
    set_weight_grids(wanted, WeightRanges(estimator="mse"))
    learn_rounding(
        wanted,
        small_data(report=shares.append),
        method.settings.rounding,
        "block",
        listen=lambda name, iteration, loss: names.append(name),
        time_path=True,
    )
    assert names[0] == "time_path"
    assert not set(names) & set(time_layers(wanted))
    for name, integers in outcome.integers().items():
        layer = outcome.model.layers[name]
        assert torch.equal(layer.rounded, wanted.layers[name].rounded)
        grid = mse_per_channel(layer.weight, layer.bits.weights)
        floor = (layer.weight / grid.scale).floor() + grid.zero_point
        last = grid.levels - 1
        assert bool(((integers == floor.clamp(0, last)) | (integers == (floor + 1).clamp(0, last))).all())


def test_every_activation_has_a_range_for_each_step(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(TFMQDM)).model
    for name, tap in model.taps.items():
        assert isinstance(tap.grid, StepGrid), name
        assert len(tap.grid.scale) == STEPS


def inputs_of(outcome: Any, data: Any) -> dict[str, Tensor]:
    """What each tap sees where weights are quantized and activations are not."""
    observed, inputs = outcome.with_weights_only(), dict[str, Tensor]()
    with torch.no_grad(), observed.observing(lambda name: lambda x: inputs.update({name: x})):
        observed(data.x, data.timesteps)
    return inputs


def test_ranges_of_the_time_path_are_exact_at_each_step(end_to_end: Run, create: Run, small_data: Run) -> None:
    """All rows of a step are alike there, so no average of extremes can miss one."""
    outcome, data = end_to_end(create(TFMQDM)), small_data()
    inputs = inputs_of(outcome, data)
    for name in time_layers(outcome.model):
        grid = outcome.model.taps[name].grid
        for step in range(STEPS):
            at_step = inputs[name][data.step_indices == step]
            width = at_step.max().clamp(min=0) - at_step.min().clamp(max=0)
            torch.testing.assert_close(grid.scale[step], width / 255, rtol=1e-5, atol=0)


def test_a_range_for_each_step_errs_no_more_than_one_for_all(end_to_end: Run, create: Run, small_data: Run) -> None:
    data = small_data()
    each = end_to_end(create(TFMQDM), "W3A4")
    whole = end_to_end(create(TFMQDM, activations={"granularity": "tensor", "estimator": "min-max"}), "W3A4")
    inputs = inputs_of(each, data)
    for name in time_layers(each.model):
        x, found = inputs[name], {}
        for outcome in (each, whole):
            grid = outcome.model.taps[name].grid
            found[type(grid)] = float((grid(x, data.step_indices) - x).square().mean())
        assert found[StepGrid] <= 1.001 * found[AffineGrid], name


def test_only_the_time_path_may_have_ranges_for_each_step(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome, everywhere = end_to_end(create(TFMQDM, step_ranges="time-path")), end_to_end(create(TFMQDM))
    on_path = time_layers(outcome.model)
    assert sum(outcome.shares["activations"]) == pytest.approx(1)
    for name, tap in outcome.model.taps.items():
        assert type(tap.grid) is (StepGrid if name in on_path else AffineGrid)
        if name in on_path:
            assert torch.equal(tap.grid.scale, everywhere.model.taps[name].grid.scale)


def test_an_average_takes_in_as_many_rows_as_it_is_told(end_to_end: Run, create: Run) -> None:
    """Of all rows at once it is the extremes."""
    settings = {"step_ranges": "all", "averaged_rows": 70}
    averaged = end_to_end(create(TFMQDM, **settings)).model
    extreme = end_to_end(create(TFMQDM, activations={"estimator": "min-max"})).model
    usual = end_to_end(create(TFMQDM, averaged_rows=2)).model
    scales = [{name: tap.grid.scale for name, tap in model.taps.items()} for model in (averaged, extreme, usual)]
    torch.testing.assert_close(scales[0], scales[1], rtol=1e-4, atol=0)
    assert bool((scales[2]["conv_in"] < 0.999 * scales[1]["conv_in"]).any())


def test_as_published_leaves_out_what_the_authors_do(create: Run, small_model: Run, small_data: Run) -> None:
    model, method = small_model("W3A8", 8), create(TFMQDM, **TFMQDM.presets["as-published"])
    method.quantize_weights(model, small_data(8), model.bits)
    method.quantize_activations(model, small_data(8), model.bits)
    assert {name for name, layer in model.layers.items() if layer.weight_grid is None} == LEFT_OUT
    assert {name for name, tap in model.taps.items() if tap.grid is None} == LEFT_OUT | UNROUNDED
    assert set(model.left_out()) == LEFT_OUT | UNROUNDED


def test_downsamplers_are_left_out_with_the_shortcuts(create: Run, small_model: Run) -> None:
    model = small_model("W4A8")
    model.structure = replace(model.structure, downsamplers=("mid_block.resnets.0.conv1",))
    assert create(TFMQDM, shortcuts=False)._left_out(model) == {
        "mid_block.resnets.0.conv1",
        *(name for name in LEFT_OUT if name.endswith("shortcut")),
    }


def test_weights_do_not_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    w4a32, w4a8, w3a8 = weights_digests("tfmq-dm", ["W4A32", "W4A8", "W3A8"])
    assert w4a32 == w4a8 != w3a8


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(TFMQDM).refusal(BitWidth.parse(bits)) is None


def test_denoisers_whose_structure_says_too_little_are_refused(create: Run, small_model: Run, small_data: Run) -> None:
    model, bits = small_model(), BitWidth(4, 8)
    model.structure = DIFFUSERS_UNET
    with pytest.raises(StageError, match="does not say what its blocks are"):
        create(TFMQDM).quantize_weights(model, small_data(), bits)
    for settings in ({"step_ranges": "time-path"}, {"ends": False}):
        with pytest.raises(StageError, match="does not say which layers its timestep passes through"):
            create(TFMQDM, **settings).quantize_activations(model, small_data(), bits)
    with pytest.raises(ValueError, match="needs calibration data"):
        create(TFMQDM).quantize_activations(small_model(), None, bits)


@pytest.mark.parametrize("granularity", ["tensor", "token"])
def test_step_ranges_without_steps_are_refused_before_work(granularity: str) -> None:
    raw = {"step_ranges": "time-path", "activations": {"granularity": granularity, "estimator": "min-max"}}
    with pytest.raises(SettingsError, match=f"has ranges for each step, not for each {granularity}"):
        validate(TFMQDMSettings, raw, str)


def test_ranges_are_taken_from_all_steps_and_roundings_from_some(create: Run) -> None:
    method = create(TFMQDM, calibration={"steps": 5, "per_step": 8}, activation_calibration={"per_step": 9})
    assert method.calibration("weights") == UniformSteps(steps=5, per_step=8)
    request = method.calibration("activations")
    assert request.step_indices(37) == list(range(37))
    assert request.size(37) == 37 * 9


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("tfmq-dm") is TFMQDM
