from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.bits import BitWidth
from qbench.diffusion.structures import DIFFUSERS_UNET
from qbench.errors import StageError
from qbench.plugins import METHODS
from qbench.quant import ActivationRanges, WeightRanges, set_input_grids, set_weight_grids
from qbench.quant.recipes import FAST_RANGE_ROWS, FAST_ROUNDING, FAST_SAMPLES
from qbench.settings import merged, validate
from qbench_methods.adaround import AdaRound, AdaRoundSettings
from qbench_methods.qdiffusion import QDiffusionSettings

Run = Callable[..., Any]
PUBLISHED = {
    "calibration": {"kind": "uniform-steps", "steps": 20, "per_step": 256},
    "weights": {"estimator": "mse", "symmetric": False, "candidates": 80},
    "rounding": {
        "iterations": 10_000,
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
        "symmetric": False,
        "granularity": "tensor",
        "samples": None,
        "candidates": 80,
        "momentum": 0.95,
        "percent": 99.99,
    },
}
"""The paper's 10,000 iterations; the rest as in BRECQ's code."""


FAST = {
    "calibration": {"per_step": FAST_SAMPLES},
    "rounding": FAST_ROUNDING,
    "activations": {"samples": FAST_RANGE_ROWS},
}


def test_defaults_are_those_of_the_authors() -> None:
    assert AdaRoundSettings().model_dump(mode="json") == PUBLISHED


def test_presets_are_parts_of_its_settings() -> None:
    defaults = AdaRoundSettings().model_dump(mode="json")
    presets = AdaRound.presets.items()
    found = {name: validate(AdaRoundSettings, merged(defaults, preset), str) for name, preset in presets}
    assert list(found) == ["strict", "fast"]
    assert found["strict"] == AdaRoundSettings()
    assert found["fast"].model_dump(mode="json") == merged(PUBLISHED, FAST)


def test_everything_is_quantized_layer_by_layer(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(AdaRound))
    assert outcome.model.left_out() == []
    assert len(outcome.shares["weights"]) == 2 * len(outcome.model.layers)
    for target in ("weights", "activations"):
        assert sum(outcome.shares[target]) == pytest.approx(1)
    bits = {tap.grid.bits for name, tap in outcome.model.taps.items() if name.endswith(".softmax")}
    assert bits == {16}


def test_each_integer_is_a_neighbour_of_its_weight_on_the_grid_of_least_error(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(AdaRound))
    nearest = outcome.start()
    set_weight_grids(nearest, WeightRanges(estimator="mse"))
    moved = 0
    for name, found in outcome.integers().items():
        layer, grid = nearest.layers[name], outcome.model.layers[name].weight_grid
        assert torch.equal(grid.scale, layer.weight_grid.scale)
        assert torch.equal(grid.zero_point, layer.weight_grid.zero_point)
        last = grid.levels - 1
        floor = (layer.weight / grid.scale).floor() + grid.zero_point
        assert bool(((found == floor.clamp(0, last)) | (found == (floor + 1).clamp(0, last))).all())
        moved += int((found != grid.quantize(layer.weight)).sum())
    assert moved > 50


def test_activations_are_ranged_between_their_extremes(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome = end_to_end(create(AdaRound))
    wanted = outcome.with_weights_only()
    set_input_grids(wanted, small_data(), ActivationRanges())
    for name, tap in outcome.model.taps.items():
        assert torch.equal(tap.grid.scale, wanted.taps[name].grid.scale)
        assert torch.equal(tap.grid.zero_point, wanted.taps[name].grid.zero_point)


def test_weights_of_32_bits_are_left_alone(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(AdaRound, weights={"estimator": "min-max"}), "W4A32", 32).model
    assert [name for name, layer in model.layers.items() if layer.weight_grid is None] == ["conv_in", "conv_out"]
    assert all(tap.grid is None for tap in model.taps.values())


def test_what_it_cannot_do_is_refused(create: Run, small_model: Run, small_data: Run) -> None:
    shapeless = small_model()
    shapeless.structure = DIFFUSERS_UNET
    with pytest.raises(StageError, match="does not say what its blocks are"):
        create(AdaRound).quantize_weights(shapeless, small_data(), BitWidth(4, 8))
    with pytest.raises(ValueError, match="needs calibration data"):
        create(AdaRound).quantize_weights(small_model(), None, BitWidth(4, 8))
    with pytest.raises(ValueError, match="needs calibration data"):
        create(AdaRound).quantize_activations(small_model(), None, BitWidth(4, 8))


def test_it_is_calibrated_on_the_data_of_q_diffusion(create: Run) -> None:
    """So that the two differ in what they do with them only."""
    method = create(AdaRound)
    assert method.calibration("weights") == method.calibration("activations") == QDiffusionSettings().calibration


def test_weights_do_not_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    w4a32, w4a8, w3a8 = weights_digests("adaround", ["W4A32", "W4A8", "W3A8"])
    assert w4a32 == w4a8 != w3a8


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(AdaRound).refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("adaround") is AdaRound
