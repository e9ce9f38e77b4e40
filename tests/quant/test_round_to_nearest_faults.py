"""What grids cannot be had for: each is refused in one sentence that names the layer or activation."""

from collections.abc import Callable

import pytest

from qbench.errors import StageError
from qbench.quant import ActivationRanges, CalibrationData, QuantModel, WeightRanges, set_input_grids, set_weight_grids

Models = Callable[..., QuantModel]
Data = Callable[..., CalibrationData]
ESTIMATORS = pytest.mark.parametrize("estimator", ["min-max", "running-average", "percentile", "mse"])
BROKEN = pytest.mark.parametrize("broken", [float("nan"), -float("inf")])


@pytest.fixture
def model(small_model: Models) -> QuantModel:
    return small_model("image", "W4A8")


@BROKEN
@pytest.mark.parametrize("estimator", ["min-max", "mse"])
def test_a_weight_that_is_not_finite_any_more_is_refused_by_name(
    model: QuantModel, estimator: str, broken: float
) -> None:
    name = "mid_block.attentions.0.to_k"
    model.layers[name].weight.view(-1)[3] = broken
    with pytest.raises(StageError, match=rf"^the weight of '{name}': a range to quantize is not finite"):
        set_weight_grids(model, WeightRanges(estimator=estimator))


@pytest.mark.parametrize("granularity", ["tensor", "step", "token"])
@ESTIMATORS
def test_data_without_rows_is_refused(model: QuantModel, small_data: Data, estimator: str, granularity: str) -> None:
    ranges = ActivationRanges(estimator=estimator, granularity=granularity)
    with pytest.raises(StageError, match="the calibration data has no rows, so there is nothing to calibrate on"):
        set_input_grids(model, small_data(count=0), ranges)


@BROKEN
@pytest.mark.parametrize("granularity", ["tensor", "step"])
@ESTIMATORS
def test_activations_that_are_not_finite_are_refused_by_name(
    model: QuantModel, small_data: Data, estimator: str, granularity: str, broken: float
) -> None:
    data = small_data()
    data.x[8, 0, 3, 3] = broken
    with pytest.raises(StageError, match=r"^the activation 'conv_in': a range to quantize is not finite"):
        set_input_grids(model, data, ActivationRanges(estimator=estimator, granularity=granularity))
    assert all(tap.observer is None and tap.grid is None for tap in model.taps.values())


@ESTIMATORS
def test_the_tap_where_it_went_wrong_is_named(model: QuantModel, small_data: Data, estimator: str) -> None:
    model.layers["up_blocks.1.resnets.1.conv2"].bias.fill_(float("nan"))
    with pytest.raises(StageError, match=r"^the activation 'conv_out': a range to quantize is not finite"):
        set_input_grids(model, small_data(), ActivationRanges(estimator=estimator))


def test_a_range_that_is_too_wide_is_refused_by_name(model: QuantModel, small_data: Data) -> None:
    data = small_data()
    data.x[8, 0, 3, 3], data.x[8, 0, 3, 4] = 3e38, -3e38
    with pytest.raises(StageError, match=r"^the activation 'conv_in': a range to quantize is wider than float32"):
        set_input_grids(model, data, ActivationRanges(), chosen=lambda name: name == "conv_in")


@ESTIMATORS
def test_a_tap_that_nothing_passes_is_named(model: QuantModel, small_data: Data, estimator: str) -> None:
    model.module.mid_block.attentions[0].forward = lambda x, **_: x
    message = r"^the activation 'mid_block\.attentions\.0\.to_q': no calibration data reached this layer"
    with pytest.raises(StageError, match=message):
        set_input_grids(model, small_data(), ActivationRanges(estimator=estimator))


def test_what_goes_wrong_leaves_the_grids_there_were(model: QuantModel, small_data: Data) -> None:
    set_input_grids(model, small_data(), ActivationRanges())
    before = {name: tap.grid for name, tap in model.taps.items()}
    model.layers["conv_in"].bias.fill_(float("nan"))
    with pytest.raises(StageError, match="is not finite"):
        set_input_grids(model, small_data(), ActivationRanges(estimator="mse"))
    assert all(tap.grid is before[name] and tap.enabled for name, tap in model.taps.items())


@pytest.mark.parametrize("granularity", ["step", "token"])
def test_a_split_with_a_range_for_each_step_or_token_is_refused(
    model: QuantModel, small_data: Data, granularity: str
) -> None:
    with pytest.raises(StageError, match=f"one range for all, not one for each {granularity}"):
        set_input_grids(model, small_data(), ActivationRanges(granularity=granularity), split=True)


def test_ranges_of_tokens_that_are_symmetric_are_refused() -> None:
    with pytest.raises(ValueError, match="ranges from each token as it comes are not offered as symmetric ones"):
        ActivationRanges(granularity="token", symmetric=True)
