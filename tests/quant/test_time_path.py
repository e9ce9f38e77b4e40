"""The path of the timestep as a unit, for the denoisers of diffusers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.errors import StageError
from qbench.quant import (
    CalibrationData,
    QuantModel,
    RoundingRecipe,
    WeightRanges,
    learn_rounding,
    min_max_per_channel,
    set_weight_grids,
    time_layers,
)
from qbench.quant.recipes import FAST_ROUNDING
from qbench.quant.reconstruction import fit_rounding
from qbench.quant.rounding import SoftRounding
from qbench.quant.units import Unit, Walk

pytestmark = pytest.mark.usefixtures("one_thread")

Models = Callable[..., QuantModel]
Data = Callable[..., CalibrationData]
ONE_LEVEL: dict[str, Any] = {
    "block_out_channels": (4,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}
STEPS = 4
KINDS = pytest.mark.parametrize("kind", ["image", "text"])
QUICK = RoundingRecipe(**(dict(FAST_ROUNDING) | {"iterations": 60, "learning_rate": 1.0}))


def first_unit(model: QuantModel, data: CalibrationData) -> Unit:
    return next(iter(Walk(model, data, "block", "quantized", time_path=True)))


def rounded(make: Models, kind: str, bits: str = "W3A32", **options: Any) -> QuantModel:
    model = make(kind, bits, **options)
    set_weight_grids(model, WeightRanges())
    return model


def fit_path(model: QuantModel, data: CalibrationData) -> None:
    """Do the first thing that ``learn_rounding`` does; the rest leaves the path as it is."""
    unit = first_unit(model, data)
    fit_rounding(
        unit, {name: SoftRounding(each.weight, each.weight_grid) for name, each in unit.layers.items()}, data, QUICK
    )


def errors(model: QuantModel, data: CalibrationData) -> Tensor:
    """Mean squared error of what the path gives, for each sampling step."""
    rows = torch.arange(len(data))
    unit = first_unit(model, data)
    with torch.no_grad():
        squares = (unit.forward(rows) - unit.target[rows]).square().mean(1)
    return torch.stack([squares[data.step_indices == step].mean() for step in data.step_indices.unique()])


@KINDS
def test_it_comes_first_and_its_layers_are_nowhere_else(kind: str, small_model: Models, small_data: Data) -> None:
    model, data = small_model(kind), small_data(kind)
    walk = Walk(model, data, "block", "quantized", time_path=True)
    path, *others = list(walk)
    assert [path.name, *(unit.name for unit in others)] == walk.names()
    assert path.name == "time_path"
    wanted = ["time_embedding.linear_1", "time_embedding.linear_2"]
    wanted += [f"{each.name}.time_emb_proj" for each in model.structure.segments if each.kind == "residual"]
    assert list(path.layers) == time_layers(model) == wanted
    assert sorted(path.taps) == sorted(wanted)
    assert sorted([*path.layers, *(name for unit in others for name in unit.layers)]) == sorted(model.layers)
    assert sorted([*path.taps, *(tap for unit in others for tap in unit.taps)]) == sorted(model.taps)
    without = Walk(model, data, "block", "quantized")
    assert [unit.name for unit in others] == [name for name in without.names() if name not in path.layers]


@KINDS
def test_its_target_is_what_all_blocks_are_given_side_by_side(kind: str, small_model: Models, small_data: Data) -> None:
    model, data = small_model(kind, dtype=torch.float64), small_data(kind, dtype=torch.float64)
    given: dict[str, Tensor] = {}
    for name in time_layers(model)[2:]:
        model.layers[name].register_forward_hook(lambda _, __, out, name=name: given.update({name: out}))
    with torch.no_grad():
        model(data.x, data.timesteps, data.context)
    wanted = torch.cat(list(given.values()), dim=1)
    unit, rows = first_unit(model, data), torch.tensor([7, 0, 3])
    torch.testing.assert_close(unit.target[rows], wanted[rows], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(unit.forward(rows), wanted[rows], rtol=1e-9, atol=1e-11)
    assert unit.channels == wanted.shape[1]  # so that the published loss is the sum over all of the outputs' channels


@KINDS
def test_blocks_see_it_as_it_was_left(kind: str, small_model: Models, small_data: Data) -> None:
    model, data = small_model(kind), small_data(kind)
    rows, is_exact = torch.arange(len(data)), {}
    for unit in Walk(model, data, "block", "full-precision", time_path=True):
        is_exact[unit.name] = torch.allclose(unit.forward(rows), unit.target[rows])
        if unit.name == "time_path":
            for layer in unit.layers.values():
                layer.weight_grid = min_max_per_channel(layer.weight, 2)
    residual = {segment.name for segment in model.structure.segments if segment.kind == "residual"}
    assert {name for name, exact in is_exact.items() if not exact} == residual


@KINDS
def test_it_sees_no_timestep_but_those_of_the_data(kind: str, small_model: Models, small_data: Data) -> None:
    model, data, seen = rounded(small_model, kind), small_data(kind), set[int]()
    path = model.structure.time_path
    assert path is not None
    run = path.run

    def noting(module: Any, state: Any) -> Any:
        seen.update(state.timesteps.tolist())
        return run(module, state)

    model.structure = replace(model.structure, time_path=replace(path, run=noting))
    learn_rounding(model, data, RoundingRecipe(iterations=2, batch_size=4), "block", time_path=True)
    assert seen == set(data.timesteps.tolist()) == {999, 699, 399, 99}


@pytest.mark.parametrize("bits", ["W2A32", "W3A32", "W4A32", "W8A32"])
@KINDS
def test_it_never_ends_worse_than_round_to_nearest(kind: str, bits: str, small_model: Models, small_data: Data) -> None:
    """On its own objective, the sum of errors over all steps."""
    data = small_data(kind, count=STEPS)
    nearest, learned = rounded(small_model, kind, bits), rounded(small_model, kind, bits)
    fit_path(learned, data)
    assert float(errors(learned, data).sum()) <= float(errors(nearest, data).sum())


@KINDS
def test_time_features_err_less_at_each_step_than_where_layers_and_blocks_are_fitted_on_their_own(
    kind: str, small_model: Models, small_data: Data
) -> None:
    data = small_data(kind, count=16, side=4, batch_size=16)
    apart, together = (rounded(small_model, kind, **ONE_LEVEL) for _ in range(2))
    learn_rounding(apart, data, QUICK, "block")
    fit_path(together, data)
    assert bool((errors(together, data) < 0.5 * errors(apart, data)).all())


def test_it_is_refused_where_the_structure_does_not_say_what_it_is(small_model: Models, small_data: Data) -> None:
    model = small_model()
    model.structure = replace(model.structure, time_path=None)
    with pytest.raises(StageError, match="does not say which layers its timestep passes through"):
        Walk(model, small_data(), "block", "quantized", time_path=True)
    assert "time_embedding.linear_1" in Walk(model, small_data(), "block", "quantized").names()
