from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.bits import BitWidth
from qbench.diffusion.structures import DIFFUSERS_UNET
from qbench.errors import StageError
from qbench.method import UniformSteps
from qbench.plugins import METHODS
from qbench.quant import ActivationRanges, AffineGrid, set_input_grids
from qbench.quant.recipes import FAST_RANGE_ROWS, FAST_ROUNDING, FAST_SAMPLES, FAST_STEP_SIZES
from qbench.settings import merged, validate
from qbench_methods.brecq import BRECQ, BRECQSettings
from qbench_methods.qdiffusion import QDiffusion

Run = Callable[..., Any]
PUBLISHED = {
    "calibration": {"kind": "uniform-steps", "steps": 20, "per_step": 256},
    "weights": {"estimator": "mse", "symmetric": False, "candidates": 80},
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
    "fisher": True,
    "activations": {
        "estimator": "mse",
        "symmetric": False,
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
"""BRECQ's code, with the paper's Fisher information; calibration data as in Q-Diffusion."""


FAST = {
    "calibration": {"per_step": FAST_SAMPLES},
    "rounding": FAST_ROUNDING,
    "activations": {"estimator": "min-max", "samples": FAST_RANGE_ROWS},
    "step_sizes": FAST_STEP_SIZES,
}


def test_defaults_are_those_of_the_authors() -> None:
    assert BRECQSettings().model_dump(mode="json") == PUBLISHED


def test_presets_are_parts_of_its_settings() -> None:
    defaults = BRECQSettings().model_dump(mode="json")
    presets = BRECQ.presets.items()
    found = {name: validate(BRECQSettings, merged(defaults, preset), str) for name, preset in presets}
    assert list(found) == ["strict", "fast"]
    assert found["strict"] == BRECQSettings()
    assert found["fast"].model_dump(mode="json") == merged(PUBLISHED, FAST)


def test_everything_is_quantized_block_by_block_and_nothing_split(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(BRECQ))
    assert outcome.model.left_out() == []
    assert len(outcome.shares["weights"]) == 2 * (len(outcome.model.structure.segments) + 1)  # two in the embedding
    for target in ("weights", "activations"):
        assert sum(outcome.shares[target]) == pytest.approx(1)
    assert {type(layer.weight_grid) for layer in outcome.model.layers.values()} == {AffineGrid}
    assert {type(tap.grid) for tap in outcome.model.taps.values()} == {AffineGrid}
    bits = {tap.grid.bits for name, tap in outcome.model.taps.items() if name.endswith(".softmax")}
    assert bits == {16}


def test_without_fisher_and_split_its_weights_are_those_of_q_diffusion(end_to_end: Run, create: Run) -> None:
    quick = {"weights": {"estimator": "min-max"}}
    with_fisher, without = (
        end_to_end(create(BRECQ, fisher=fisher, **quick), "W3A32").integers() for fisher in (True, False)
    )
    other = end_to_end(create(QDiffusion, split=False), "W3A32").integers()
    assert all(torch.equal(without[name], integers) for name, integers in other.items())
    assert sum(int((without[name] != integers).sum()) for name, integers in with_fisher.items()) > 50


def test_step_sizes_are_learned_and_zero_points_stay(end_to_end: Run, create: Run, small_data: Run) -> None:
    outcome = end_to_end(create(BRECQ))
    start = outcome.with_weights_only()
    set_input_grids(start, small_data(), ActivationRanges(estimator="mse", samples=64))
    for name, tap in outcome.model.taps.items():
        found, before = tap.grid.tensors(), start.taps[name].grid.tensors()
        assert torch.equal(found["zero_point"], before["zero_point"])
        assert torch.equal(found["scale"], before["scale"]) == name.endswith(".softmax")  # of 16 bits
        torch.testing.assert_close(found["scale"], before["scale"], rtol=0, atol=0.021)  # twice the rate


def test_shares_make_1_where_there_is_nothing_to_learn(end_to_end: Run, create: Run) -> None:
    shares = end_to_end(create(BRECQ, activations={"granularity": "token"}), "W32A8").shares
    assert sum(shares["activations"]) == pytest.approx(1)


def test_weights_of_32_bits_are_left_alone(end_to_end: Run, create: Run) -> None:
    model = end_to_end(create(BRECQ, weights={"estimator": "min-max"}), "W4A32", 32).model
    assert [name for name, layer in model.layers.items() if layer.weight_grid is None] == ["conv_in", "conv_out"]
    assert all(tap.grid is None for tap in model.taps.values())


def test_what_it_cannot_do_is_refused(create: Run, small_model: Run, small_data: Run) -> None:
    shapeless = small_model()
    shapeless.structure = DIFFUSERS_UNET
    with pytest.raises(StageError, match="does not say what its blocks are"):
        create(BRECQ).quantize_weights(shapeless, small_data(), BitWidth(4, 8))
    with pytest.raises(ValueError, match="needs calibration data"):
        create(BRECQ).quantize_activations(small_model(), None, BitWidth(4, 8))


def test_weights_and_activations_are_calibrated_on_the_same_data(create: Run) -> None:
    method = create(BRECQ, calibration={"steps": 5, "per_step": 8})
    assert method.calibration("weights") == method.calibration("activations") == UniformSteps(steps=5, per_step=8)


def test_weights_do_not_depend_on_the_bits_of_activations(weights_digests: Run) -> None:
    w4a32, w4a8, w3a8 = weights_digests("brecq", ["W4A32", "W4A8", "W3A8"])
    assert w4a32 == w4a8 != w3a8


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(BRECQ).refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("brecq") is BRECQ
