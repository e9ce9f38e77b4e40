"""What a method may say to ``round_to_nearest`` beyond the recipes: which layers, and how many rows at a time."""

from collections.abc import Callable

import pytest
import torch

from qbench.quant import (
    ActivationRanges,
    CalibrationData,
    QuantModel,
    WeightRanges,
    set_dynamic_grids,
    set_input_grids,
    set_weight_grids,
)

Models = Callable[..., QuantModel]
Data = Callable[..., CalibrationData]


def test_weights_get_grids_where_they_are_chosen(small_model: Models) -> None:
    model = small_model()
    set_weight_grids(model, WeightRanges(), chosen=lambda name: name.startswith("mid_block"))
    found = {name for name, layer in model.layers.items() if layer.weight_grid is not None}
    assert found == {name for name in model.layers if name.startswith("mid_block")} != set()


@pytest.mark.parametrize("kind", ["image", "text"])
def test_dynamic_grids_need_no_data_and_are_those_of_tokens(kind: str, small_model: Models, small_data: Data) -> None:
    without, within = small_model(kind, "W4A8S16"), small_model(kind, "W4A8S16")
    set_dynamic_grids(without)
    set_input_grids(within, small_data(kind), ActivationRanges(granularity="token"))
    assert {name: tap.grid for name, tap in without.taps.items()} == {
        name: tap.grid for name, tap in within.taps.items()
    }
    assert all(tap.grid is not None for tap in without.taps.values())


def test_activations_of_32_bits_and_those_not_chosen_get_no_dynamic_grid(small_model: Models) -> None:
    model, high = small_model(bits="W4A8"), small_model(bits="W4A32")
    set_dynamic_grids(model, chosen=lambda name: name == "conv_in")
    set_dynamic_grids(high)
    assert [name for name, tap in model.taps.items() if tap.grid is not None] == ["conv_in"]
    assert all(tap.grid is None for tap in high.taps.values())


@pytest.mark.parametrize("granularity", ["tensor", "step"])
def test_an_average_is_over_the_extremes_of_so_many_rows(
    granularity: str, small_model: Models, small_data: Data
) -> None:
    """Where rows differ a lot, an average over fewer of them at a time is farther from the extremes."""
    data, scales = small_data(count=32), []
    data.x.mul_(torch.arange(1.0, 33.0).view(-1, 1, 1, 1))
    for rows in (32, 8, 1):
        model = small_model(bits="W4A8")
        ranges = ActivationRanges(estimator="running-average", granularity=granularity, momentum=0.5)
        set_input_grids(model, data, ranges, averaged_rows=rows, chosen=lambda name: name == "conv_in")
        grid = model.taps["conv_in"].grid
        assert grid is not None
        scales.append(float(grid.tensors()["scale"].mean()))
    assert scales[0] >= scales[1] > scales[2]
