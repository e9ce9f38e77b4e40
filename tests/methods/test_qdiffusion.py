from collections.abc import Callable
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
    ActivationRanges,
    AffineGrid,
    SplitGrid,
    WeightRanges,
    min_max_per_channel,
    set_input_grids,
    set_weight_grids,
)
from qbench.quant.recipes import FAST_RANGE_ROWS, FAST_ROUNDING, FAST_SAMPLES, FAST_STEP_SIZES
from qbench.settings import merged, validate
from qbench_methods.qdiffusion import QDiffusion, QDiffusionSettings

Run = Callable[..., Any]
PUBLISHED = {
    "calibration": {"kind": "uniform-steps", "steps": 20, "per_step": 256},
    "split": True,
    "weights": {"estimator": "min-max", "symmetric": False, "candidates": 80},
    "rounding": {
        "iterations": 20_000,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "regularizer": 0.01,
        "loss": "published",
        "warm_up": 0.2,
        "beta_start": 20.0,
        "beta_end": 2.0,
    },
    "activations": {
        "estimator": "min-max",
        "symmetric": True,
        "granularity": "tensor",
        "samples": 64,
        "candidates": 80,
        "momentum": 0.95,
        "percent": 99.99,
    },
    "step_sizes": {
        "iterations": 5_000,
        "batch_size": 32,
        "learning_rate": 4e-4,
        "power": 2.4,
        "loss": "published",
        "logarithmic": False,
    },
}
"""Q-Diffusion's code for DDIM on CIFAR-10."""


FAST = {
    "calibration": {"per_step": FAST_SAMPLES},
    "weights": {"estimator": "mse"},
    "rounding": FAST_ROUNDING,
    "activations": {"symmetric": False, "samples": FAST_RANGE_ROWS},
    "step_sizes": FAST_STEP_SIZES,
}


def test_defaults_are_those_of_the_authors() -> None:
    assert QDiffusionSettings().model_dump(mode="json") == PUBLISHED


def test_presets_are_parts_of_its_settings() -> None:
    defaults = QDiffusionSettings().model_dump(mode="json")
    presets = QDiffusion.presets.items()
    found = {name: validate(QDiffusionSettings, merged(defaults, preset), str) for name, preset in presets}
    assert list(found) == ["strict", "cifar10", "lsun-bedroom", "lsun-church", "stable-diffusion", "fast"]
    assert found["strict"] == found["cifar10"] == QDiffusionSettings()
    assert found["fast"].model_dump(mode="json") == merged(PUBLISHED, FAST)


@pytest.mark.parametrize(
    ("preset", "steps", "per_step", "batch", "symmetric", "weights", "activations", "split"),
    [
        ("cifar10", 20, 256, 32, True, "min-max", "min-max", True),
        ("lsun-bedroom", 20, 256, 32, True, "mse", "running-average", False),
        ("lsun-church", 20, 256, 32, False, "mse", "mse", False),
        ("stable-diffusion", 25, 128, 8, False, "mse", "running-average", True),
    ],
)
def test_presets_of_models_are_the_rows_of_the_authors_code(
    preset: str, steps: int, per_step: int, batch: int, symmetric: bool, weights: str, activations: str, split: bool
) -> None:
    defaults = QDiffusionSettings().model_dump(mode="json")
    found = validate(QDiffusionSettings, merged(defaults, QDiffusion.presets[preset]), str)
    assert found.calibration == UniformSteps(steps=steps, per_step=per_step)
    assert (found.rounding.batch_size, found.step_sizes.batch_size) == (batch, batch)
    assert (found.weights.estimator, found.activations.estimator) == (weights, activations)
    assert (found.activations.symmetric, found.split) == (symmetric, split)
    assert (found.rounding.iterations, found.step_sizes.iterations) == (20_000, 5_000)


def test_everything_is_quantized_and_nothing_left_out(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(QDiffusion))
    assert outcome.model.left_out() == []
    for target in ("weights", "activations"):
        assert sum(outcome.shares[target]) == pytest.approx(1)


def test_each_half_of_a_shortcuts_weight_has_its_own_range(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(QDiffusion)).model
    splits = model.structure.splits
    assert len(splits) == 2
    for name, layer in model.layers.items():
        grid = layer.weight_grid
        if name not in splits:
            assert isinstance(grid, AffineGrid)
            continue
        assert isinstance(grid, SplitGrid)
        assert grid.index == splits[name] == layer.split
        for half, part in ((grid.first, layer.weight[:, : grid.index]), (grid.second, layer.weight[:, grid.index :])):
            assert torch.equal(half.scale, min_max_per_channel(part, 3).scale)
            assert torch.equal(half.zero_point, min_max_per_channel(part, 3).zero_point)
        assert not torch.equal(grid.first.scale, grid.second.scale)


def test_each_half_of_a_shortcuts_input_has_its_own_range(end_to_end: Run, create: Run, small_data: Run) -> None:
    """The extremes, where step sizes are learned at a rate that moves nothing."""
    still = {"iterations": 1, "learning_rate": 1e-12}
    outcome = end_to_end(create(QDiffusion, activations={"samples": None}, step_sizes=still))
    observed, given = outcome.with_weights_only(), small_data()
    inputs: dict[str, Tensor] = {}
    with torch.no_grad(), observed.observing(lambda name: lambda x: inputs.update({name: x})):
        observed(given.x, given.timesteps)
    for name, tap in outcome.model.taps.items():
        index, grid = outcome.model.structure.splits.get(name), tap.grid
        if index is None:
            assert isinstance(grid, AffineGrid)
            halves = [(grid, inputs[name])]
        else:
            assert isinstance(grid, SplitGrid)
            assert grid.index == index
            halves = [(grid.first, inputs[name][:, :index]), (grid.second, inputs[name][:, index:])]
        for half, part in halves:
            levels, zero_point = (2**16 - 1, 0) if name.endswith(".softmax") else (127, 128)
            assert float(half.scale) == pytest.approx(float(part.abs().max()) / levels, rel=1e-3)
            assert float(half.zero_point) == zero_point


def test_without_the_split_there_is_one_grid(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(QDiffusion, split=False)).model
    assert {type(layer.weight_grid) for layer in model.layers.values()} == {AffineGrid}
    assert {type(tap.grid) for tap in model.taps.values()} == {AffineGrid}


def test_weights_are_learned_block_by_block_from_round_to_nearest(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(QDiffusion))
    segments = outcome.model.structure.segments
    assert len(outcome.shares["weights"]) == 2 * (len(segments) + 1)  # the embedding has two layers
    nearest = outcome.start()
    set_weight_grids(nearest, WeightRanges(), split=True)
    moved = 0
    for name, found in outcome.integers().items():
        layer = nearest.layers[name]
        grid = layer.weight_grid.dense(layer.weight.shape)
        last = grid.levels - 1
        floor = (layer.weight / grid.scale).floor() + grid.zero_point
        assert bool(((found == floor.clamp(0, last)) | (found == (floor + 1).clamp(0, last))).all())
        moved += int((found != layer.weight_grid.quantize(layer.weight)).sum())
    assert moved > 50


def test_step_sizes_are_learned_and_zero_points_stay(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome = end_to_end(create(QDiffusion))
    start = outcome.with_weights_only()
    set_input_grids(start, small_data(), ActivationRanges(symmetric=True, samples=64), split=True)
    for name, tap in outcome.model.taps.items():
        found, before = tap.grid.tensors(), start.taps[name].grid.tensors()
        assert torch.equal(found["zero_point"], before["zero_point"])
        assert bool((found["scale"] == before["scale"]).all()) == name.endswith(".softmax")  # of 16 bits
        torch.testing.assert_close(found["scale"], before["scale"], rtol=0, atol=0.021)  # twice the rate


def test_the_softmax_has_the_bits_that_are_asked_for(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(QDiffusion)).model
    bits = {name: tap.grid.bits for name, tap in model.taps.items() if name.endswith(".softmax")}
    assert bits == {f"{name}.softmax": 16 for name in model.attentions}
    assert {tap.grid.bits for name, tap in model.taps.items() if name not in bits} == {8}
    assert all(float(model.taps[name].grid.zero_point) == 0 for name in bits)


@pytest.mark.parametrize(("bits", "left"), [("W4A32", ["conv_in", "conv_out"]), ("W32A8", None)])
def test_weights_of_32_bits_are_left_alone(end_to_end: Run, create: Run, bits: str, left: list[str] | None) -> None:
    model = end_to_end(create(QDiffusion), bits, 32).model
    untouched = [name for name, layer in model.layers.items() if layer.weight_grid is None]
    assert untouched == (list(model.layers) if left is None else left)


def test_weights_do_not_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    w4a32, w4a8, w4a8s16, w3a8 = weights_digests("qdiffusion", ["W4A32", "W4A8", "W4A8S16", "W3A8"])
    assert w4a32 == w4a8 == w4a8s16 != w3a8


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(QDiffusion).refusal(BitWidth.parse(bits)) is None


def test_what_it_cannot_do_is_refused(create: Run, small_model: Run, small_data: Run) -> None:
    shapeless = small_model()
    shapeless.structure = DIFFUSERS_UNET
    with pytest.raises(StageError, match="does not say what its blocks are"):
        create(QDiffusion).quantize_weights(shapeless, small_data(), BitWidth(4, 8))
    with pytest.raises(ValueError, match="needs calibration data"):
        create(QDiffusion).quantize_activations(small_model(), None, BitWidth(4, 8))


def test_weights_and_activations_are_calibrated_on_the_same_data(create: Run) -> None:
    method = create(QDiffusion, calibration={"steps": 5, "per_step": 8})
    assert method.calibration("weights") == method.calibration("activations") == UniformSteps(steps=5, per_step=8)


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("qdiffusion") is QDiffusion


@pytest.mark.parametrize("granularity", ["step", "token"])
def test_a_split_with_other_ranges_than_one_for_all_is_refused_before_work(granularity: str) -> None:
    raw = {"activations": {"granularity": granularity, "symmetric": False}}
    with pytest.raises(SettingsError, match=f"a split shortcut has one range for all, not one for each {granularity}"):
        validate(QDiffusionSettings, raw, str)
    assert not validate(QDiffusionSettings, raw | {"split": False}, str).split
