"""Grids for all weights and all activations of a model: what round-to-nearest methods need, and others start from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from qbench.bits import FULL_PRECISION_BITS
from qbench.errors import StageError
from qbench.quant.data import CalibrationData
from qbench.quant.grid import AffineGrid, Grid, WeightGrid
from qbench.quant.grid_kinds import ChannelScaledGrid, DynamicGrid, SplitGrid, StepGrid
from qbench.quant.layers import QuantLayer, Tap
from qbench.quant.model import QuantModel
from qbench.quant.ranges import (
    MSESearch,
    Percentile,
    RangeEstimator,
    RunningAverage,
    RunningMinMax,
    min_max_per_channel,
    mse_per_channel,
)
from qbench.quant.recipes import ActivationRanges, WeightRanges

AVERAGED_ROWS = 64
"""Rows whose extremes enter a running average at a time, as in Q-Diffusion's code; the machine has no say in it."""
NO_FACTORS: Mapping[str, Tensor] = {}
EstimatorT = TypeVar("EstimatorT", bound=RangeEstimator)


def set_weight_grids(
    model: QuantModel,
    ranges: WeightRanges,
    split: bool = False,
    chosen: Callable[[str], bool] = lambda _: True,
    factors: Mapping[str, Tensor] = NO_FACTORS,
) -> None:
    """Give every layer that has low bits the grid of its weight, rounded to nearest.

    Args:
        model: the model.
        ranges: how ranges are chosen.
        split: whether the shortcuts of concatenations get two grids; one with factors does not.
        chosen: says from its name whether a layer gets a grid.
        factors: of layers by name, as ``ChannelScaledGrid`` has them for inputs; weights are multiplied by them.

    Raises:
        StageError: a weight is not finite.
    """
    for name, layer in model.layers.items():
        if layer.bits.weights == FULL_PRECISION_BITS or not chosen(name):
            continue

        def grid(weight: Tensor, layer: QuantLayer = layer) -> AffineGrid:
            if ranges.estimator == "mse":
                return mse_per_channel(weight, layer.bits.weights, ranges.symmetric, ranges.candidates)
            return min_max_per_channel(weight, layer.bits.weights, ranges.symmetric)

        try:
            if name in factors:
                layer.weight_grid = ChannelScaledGrid(grid(layer.weight * factors[name]), 1 / factors[name])
            else:
                layer.weight_grid = _weight_grid(layer, grid, split)
        except ValueError as error:
            raise StageError(f"the weight of {name!r}: {error}") from error


def set_input_grids(
    model: QuantModel,
    data: CalibrationData,
    ranges: ActivationRanges,
    split: bool = False,
    chosen: Callable[[str], bool] = lambda _: True,
    averaged_rows: int = AVERAGED_ROWS,
    factors: Mapping[str, Tensor] = NO_FACTORS,
) -> None:
    """Give every activation that has low bits its grid, from what passes in the model with its quantized weights.

    Activations are not quantized while they are observed. The softmax output lies between 0 and 1, so its grid starts
    at 0, whatever ``symmetric`` says.

    Args:
        model: the model.
        data: what it is calibrated on.
        ranges: how ranges are chosen.
        split: whether the shortcuts of concatenations get two grids; one with factors does not.
        chosen: says from its name whether a tap gets a grid.
        averaged_rows: rows whose extremes enter a running average at a time.
        factors: of layers by name, as ``ChannelScaledGrid`` has them; their inputs are divided by them.

    Raises:
        StageError: an activation is not finite or never came by, or a split is asked of other ranges than one for all.
    """
    if split and ranges.granularity != "tensor":
        raise StageError(f"a split shortcut needs one range for all, not one for each {ranges.granularity}")
    if not len(data):
        raise StageError("the calibration data has no rows, so there is nothing to calibrate on")
    taps = _low_taps(model, chosen)
    if not taps or ranges.granularity == "token":
        grids: dict[str, Grid] = {name: _dynamic_grid(model, name, tap) for name, tap in taps.items()}
        data.report(1.0)
    else:
        if ranges.estimator == "running-average":
            data = replace(data, batch_size=averaged_rows)
        with _activations_as_they_are(model):
            grids = _grids(model, data, ranges, split, taps, factors)
    for name, grid in grids.items():
        taps[name].grid = _scaled(grid, factors[name]) if name in factors else grid


def _scaled(grid: Grid, factor: Tensor) -> ChannelScaledGrid:
    assert isinstance(grid, AffineGrid | StepGrid | DynamicGrid)
    return ChannelScaledGrid(grid, factor)


def set_dynamic_grids(model: QuantModel, chosen: Callable[[str], bool] = lambda _: True) -> None:
    """Give every activation that has low bits a grid from the extremes of each token as it comes, without any data.

    What a convolution sees has no tokens, so there each image has its own; no range reaches over images.

    Args:
        model: the model.
        chosen: says from its name whether a tap gets a grid.
    """
    for name, tap in _low_taps(model, chosen).items():
        tap.grid = _dynamic_grid(model, name, tap)


def _low_taps(model: QuantModel, chosen: Callable[[str], bool]) -> dict[str, Tap]:
    return {name: tap for name, tap in model.taps.items() if tap.bits < FULL_PRECISION_BITS and chosen(name)}


def _grids(
    model: QuantModel,
    data: CalibrationData,
    ranges: ActivationRanges,
    split: bool,
    taps: dict[str, Tap],
    factors: Mapping[str, Tensor],
) -> dict[str, Grid]:
    if ranges.samples is not None or ranges.estimator == "running-average":
        # In the data's own order, by step, a moving average would forget all but the last steps.
        generator = torch.Generator().manual_seed(data.seed)
        drawn = torch.randperm(len(data), generator=generator)[: ranges.samples]
        data = data.rows(drawn.to(data.step_indices.device))
    if ranges.granularity == "tensor":
        return _Calibration(model, ranges, split, taps, factors).grids(data)
    steps = torch.unique(data.step_indices)
    calibration = _Calibration(model, ranges, False, taps, factors)
    found = []
    for step in steps:
        at_step = data.for_share(1 / len(steps)).rows((data.step_indices == step).nonzero().squeeze(1))
        found.append(calibration.grids(at_step))
    return {name: _grid_of_steps(steps, [grids[name] for grids in found]) for name in taps}


@contextmanager
def _activations_as_they_are(model: QuantModel) -> Iterator[None]:
    """Take the grids off all taps while the context lasts."""
    before = {name: tap.grid for name, tap in model.taps.items()}
    for tap in model.taps.values():
        tap.grid = None
    try:
        yield
    finally:
        for name, tap in model.taps.items():
            tap.grid = before[name]


def _weight_grid(layer: QuantLayer, grid: Callable[[Tensor], AffineGrid], split: bool) -> WeightGrid:
    if not split or layer.split is None:
        return grid(layer.weight)
    return SplitGrid(layer.split, grid(layer.weight[:, : layer.split]), grid(layer.weight[:, layer.split :]))


def _dynamic_grid(model: QuantModel, name: str, tap: Tap) -> DynamicGrid:
    """Return one range for each token; what a convolution sees has none, so each image has its own."""
    axes = model.layers[name].weight.dim() - 1 if name in model.layers else 1
    return DynamicGrid(tap.bits, axes)


class _Calibration:
    """Finds one grid for each of some taps from all of the data."""

    def __init__(
        self,
        model: QuantModel,
        ranges: ActivationRanges,
        split: bool,
        taps: dict[str, Tap],
        factors: Mapping[str, Tensor],
    ) -> None:
        self._model = model
        self._factors = factors
        self._ranges = ranges
        self._taps = taps
        self._split = {
            name: layer.split
            for name, layer in model.layers.items()
            if split and layer.split and name in taps and name not in factors
        }

    def grids(self, data: CalibrationData) -> dict[str, Grid]:
        """Return the grids; percentile and error search know the extremes from a first pass."""
        if self._ranges.estimator in ("min-max", "running-average"):
            seen = self._observe(data, lambda name, half: self._simple())
        else:
            extremes = self._observe(data.for_share(0.5), lambda name, half: RunningMinMax())
            refine = self._refining(extremes)
            seen = self._observe(data.for_share(0.5), refine)
        return {name: self._grid(name, estimators) for name, estimators in seen.items()}

    def _simple(self) -> RangeEstimator:
        return RunningAverage(self._ranges.momentum) if self._ranges.estimator == "running-average" else RunningMinMax()

    def _refining(self, seen: dict[str, list[RunningMinMax]]) -> Callable[[str, int], RangeEstimator]:
        def make(name: str, half: int) -> RangeEstimator:
            extremes = seen[name][half].extremes()
            if self._ranges.estimator == "percentile":
                return Percentile(extremes, self._ranges.percent)
            return MSESearch(extremes, self._taps[name].bits, self._is_symmetric(name), self._ranges.candidates)

        return make

    def _observe(self, data: CalibrationData, make: Callable[[str, int], EstimatorT]) -> dict[str, list[EstimatorT]]:
        """Run through the data; return each tap's estimator, or the two of a shortcut's halves."""
        estimators = {}
        for name in self._taps:
            with _naming(name):
                estimators[name] = [make(name, half) for half in range(1 + (name in self._split))]

        def observer(name: str) -> Callable[[Tensor], None]:
            index = self._split.get(name)
            factor = self._factors.get(name)

            def observe(x: Tensor) -> None:
                if factor is not None:
                    x = x / factor
                parts = [x] if index is None else [x[:, :index], x[:, index:]]
                for estimator, part in zip(estimators[name], parts, strict=True):
                    estimator(part)

            return observe if name in estimators else lambda x: None

        with self._model.observing(observer):
            data.run_through(self._model)
        return estimators

    def _grid(self, name: str, estimators: Sequence[RangeEstimator]) -> Grid:
        with _naming(name):
            grids = [each.grid(self._taps[name].bits, self._is_symmetric(name)) for each in estimators]
        return SplitGrid(self._split[name], *grids) if name in self._split else grids[0]

    def _is_symmetric(self, name: str) -> bool:
        return self._ranges.symmetric and not name.endswith(".softmax")


def _grid_of_steps(steps: Tensor, grids: Sequence[Grid]) -> StepGrid:
    """Return the grids of some steps as those of all steps: one that was not calibrated takes its nearest."""
    wanted = torch.arange(int(steps.max()) + 1, device=steps.device)
    nearest = (wanted[:, None] - steps[None, :]).abs().argmin(dim=1)
    tensors = [grid.tensors() for grid in grids]
    scale, zero_point = (torch.stack([each[name] for each in tensors])[nearest] for name in ("scale", "zero_point"))
    return StepGrid(grids[0].bits, scale, zero_point)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise StageError(f"the activation {name!r}: {error}") from error
