"""Reconstruction: weights and step sizes learned so that blocks or layers put out what they do in full precision.

Sources: AdaRound (arXiv 2004.10568) for the rounding of weights, BRECQ (arXiv 2102.05426) for doing so block by block,
LSQ (arXiv 1902.08153) for step sizes. Everything runs in the modules' evaluation mode, and the same seed gives the
same result.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from qbench.errors import StageError
from qbench.quant.data import CalibrationData
from qbench.quant.grid import Grid
from qbench.quant.grid_kinds import grid_from_parts
from qbench.quant.layers import Tap
from qbench.quant.model import QuantModel
from qbench.quant.recipes import ActivationRanges, Normalization, RoundingRecipe, StepSizeRecipe
from qbench.quant.round_to_nearest import set_input_grids
from qbench.quant.rounding import SoftRounding, annealed
from qbench.quant.running_state import Indexed, slices
from qbench.quant.sensitivity import block_sensitivities
from qbench.quant.units import Granularity, Unit, Walk

RANGES_SHARE = 0.1
"""About how much of the work on activations goes into their first ranges, for the progress display."""
STEP_SIZE_SHARES = (0.01, 100.0)
"""How far a learned step size may go from where it started: beyond, nothing would be left of the grid."""
UNLEARNED_BITS = 16

Listen = Callable[[str, int, Tensor], None]
"""Hears the name of a unit, the iteration, and the reconstruction loss."""


def learn_rounding(
    model: QuantModel,
    data: CalibrationData,
    recipe: RoundingRecipe,
    granularity: Granularity,
    fisher: bool = False,
    listen: Listen = lambda name, iteration, loss: None,
    time_path: bool = False,
) -> None:
    """Learn the rounding of every weight that has a grid, unit after unit.

    A unit's inputs come from the network with the units before it quantized, its targets from full precision.
    Activations are not quantized meanwhile unless they have grids already.

    Args:
        model: with the weights' grids.
        data: what passes through it.
        recipe: how it is learned.
        granularity: ``block`` by block, other layers alone; or ``layer`` by layer.
        fisher: whether a block's squared errors are weighted by the diagonal of the Fisher information.
        listen: hears of every iteration.
        time_path: whether the path of the timestep is one unit, before all others.

    Raises:
        StageError: the denoiser's blocks, or the path of its timestep, are not known, or a loss is not finite.
    """
    walk = Walk(model, data, granularity, "quantized", time_path)
    weights = block_sensitivities(model, data, walk.budget) if fisher and granularity == "block" else {}
    share = 1 / max(len(walk.names()), 1)
    for unit in walk:
        roundings = {
            name: SoftRounding(layer.weight, layer.weight_grid)
            for name, layer in unit.layers.items()
            if layer.weight_grid is not None
        }
        if roundings:
            fit_rounding(unit, roundings, data.for_share(share), recipe, weights.get(unit.name), listen)
        else:
            data.report(share)
        del unit, roundings  # what they hold would stay while the next unit is collected


def fit_rounding(
    unit: Unit,
    roundings: Mapping[str, SoftRounding],
    data: CalibrationData,
    recipe: RoundingRecipe,
    weights: Indexed | None = None,
    listen: Listen = lambda name, iteration, loss: None,
) -> None:
    """Learn the rounding of one unit's weights and put it into its layers.

    Args:
        unit: the unit.
        roundings: by the names of its layers.
        data: as many rows as may be drawn, from the unit's first on.
        recipe: how it is learned.
        weights: of the squared errors, in the shape of the unit's output.
        listen: hears of every iteration.

    Raises:
        StageError: it diverged.
    """
    loss_of = _loss(unit, recipe.loss, data, weights=weights)
    optimizer = Adam([rounding.alpha for rounding in roundings.values()], lr=recipe.learning_rate, fused=True)
    entries = sum(rounding.alpha.numel() for rounding in roundings.values())
    strength = recipe.regularizer / (entries if recipe.loss == "relative" else 1)
    try:
        for iteration, rows in enumerate(_batches(data, recipe.iterations, recipe.batch_size)):
            for name, rounding in roundings.items():
                unit.layers[name].learned = rounding.weight()
            loss = loss_of(unit.forward(rows), rows)
            torch.autograd.backward(loss)
            beta = annealed(iteration, recipe.iterations, recipe.warm_up, recipe.beta_start, recipe.beta_end)
            for rounding in roundings.values():
                rounding.back_propagate(strength, beta)
            optimizer.step()
            listen(unit.name, iteration, loss.detach())
            data.report(1 / recipe.iterations)
    finally:
        for layer in unit.layers.values():
            layer.learned = None
    _check(unit, [rounding.alpha for rounding in roundings.values()])
    for name, rounding in roundings.items():
        layer = unit.layers[name]
        assert layer.weight_grid is not None
        layer.adopt(layer.weight_grid, rounding.integers())


def learn_input_grids(
    model: QuantModel,
    data: CalibrationData,
    ranges: ActivationRanges,
    recipe: StepSizeRecipe,
    granularity: Granularity,
    split: bool = False,
    chosen: Callable[[str], bool] = lambda _: True,
) -> None:
    """Give every activation that has low bits its grid, then learn its step size.

    This is ``set_input_grids`` followed by ``learn_step_sizes``.

    Args:
        model: with the weights' grids.
        data: what passes through it.
        ranges: how ranges are chosen.
        recipe: how step sizes are learned.
        granularity: ``block`` by block, other layers alone; or ``layer`` by layer.
        split: whether the shortcuts of concatenations get two grids.
        chosen: says from its name whether a tap gets a grid.

    Raises:
        StageError: as for the two.
    """
    set_input_grids(model, data.for_share(RANGES_SHARE), ranges, split, chosen)
    learn_step_sizes(model, data.for_share(1 - RANGES_SHARE), recipe, granularity)


def learn_step_sizes(
    model: QuantModel,
    data: CalibrationData,
    recipe: StepSizeRecipe,
    granularity: Granularity,
    listen: Listen = lambda name, iteration, loss: None,
) -> None:
    """Learn the step size of every activation that has a static grid, unit after unit; zero points stay.

    A unit's inputs and targets come from full precision; within the unit, weights and activations are quantized.
    Grids of 16 bits and dynamic ones stay as they are, and so do, layer by layer, the operands of attention.

    Args:
        model: with the grids of weights and activations.
        data: what passes through it.
        recipe: how it is learned.
        granularity: ``block`` by block, other layers alone; or ``layer`` by layer.
        listen: hears of every iteration.

    Raises:
        StageError: the denoiser's blocks are not known, or a loss is not finite.
    """
    walk = Walk(model, data, granularity, "full-precision")
    share = 1 / max(len(walk.names()), 1)
    for unit in walk:
        learned = [
            _LearnedStep(model.taps[name], grid, recipe.logarithmic)
            for name in unit.taps
            if (grid := model.taps[name].grid) is not None and _is_learnable(grid)
        ]
        if learned:
            _fit_step_sizes(unit, learned, data.for_share(share), recipe, listen)
        else:
            data.report(share)
        del unit, learned  # what they hold would stay while the next unit is collected


@dataclass(frozen=True)
class _Loss:
    """The reconstruction loss of one unit, divided by ``scale`` or, where there is none, as published."""

    target: Indexed
    channels: int
    power: float = 2.0
    weights: Indexed | None = None
    scale: float | None = None

    def __call__(self, output: Tensor, rows: Tensor | slice) -> Tensor:
        target = self.target[rows]
        if self.power == 2 and self.weights is None:
            mean = functional.mse_loss(output, target)  # one pass, where the steps below are many
        else:
            error = (output - target).abs().pow(self.power)
            mean = (error if self.weights is None else error * self.weights[rows]).mean()
        return mean * (self.channels if self.scale is None else 1 / self.scale)


def _loss(
    unit: Unit, kind: Normalization, data: CalibrationData, power: float = 2.0, weights: Indexed | None = None
) -> _Loss:
    if kind == "published":
        return _Loss(unit.target, unit.channels, power, weights)
    loss_of = _Loss(unit.target, unit.channels, power, weights, 1.0)
    total = 0.0
    with torch.no_grad():
        for rows in slices(len(data), data.batch_size):
            indices = torch.arange(rows.start, rows.stop, device=data.x.device)
            total += float(loss_of(unit.forward(indices), rows)) * (rows.stop - rows.start)
    # A unit without an error to begin with has nothing to learn, and nothing to be divided by.
    return replace(loss_of, scale=total / len(data) or 1.0)


class _LearnedStep:
    """The grid of a tap while its step size is being learned."""

    def __init__(self, tap: Tap, grid: Grid, logarithmic: bool) -> None:
        self._tap = tap
        self._grid = grid
        self._tensors = grid.tensors()
        self._start = self._tensors["scale"].detach().clone()
        self._logarithmic = logarithmic
        start = torch.zeros_like(self._start) if logarithmic else self._start.clone()
        self.parameter = start.requires_grad_(True)

    def install(self) -> None:
        """Let the tap round to the grid of now, with its gradient."""
        scale = self._start * self.parameter.exp() if self._logarithmic else self.parameter
        self._put(scale)

    @torch.no_grad()
    def keep_within_bounds(self) -> None:
        """Stop the step size from vanishing or running away."""
        if self._logarithmic:
            self.parameter.clamp_(math.log(STEP_SIZE_SHARES[0]), math.log(STEP_SIZE_SHARES[1]))
        else:
            low, high = (share * self._start for share in STEP_SIZE_SHARES)
            self.parameter.copy_(torch.minimum(torch.maximum(self.parameter, low), high))

    def give_up(self) -> None:
        """Let the tap round to the grid that it had."""
        self._tap.grid = self._grid

    def finish(self) -> None:
        """Let the tap round to the grid that was learned, without gradients."""
        learned = self.parameter.detach()
        self._put(self._start * learned.exp() if self._logarithmic else learned)

    def _put(self, scale: Tensor) -> None:
        self._tap.grid = grid_from_parts(self._grid.config(), self._tensors | {"scale": scale})


def _fit_step_sizes(
    unit: Unit, learned: list[_LearnedStep], data: CalibrationData, recipe: StepSizeRecipe, listen: Listen
) -> None:
    loss_of = _loss(unit, recipe.loss, data, recipe.power)
    optimizer = Adam([each.parameter for each in learned], lr=recipe.learning_rate)
    schedule = CosineAnnealingLR(optimizer, T_max=recipe.iterations)
    try:
        for iteration, rows in enumerate(_batches(data, recipe.iterations, recipe.batch_size)):
            for each in learned:
                each.install()
            loss = loss_of(unit.forward(rows), rows)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            for each in learned:
                each.keep_within_bounds()
            listen(unit.name, iteration, loss.detach())
            data.report(1 / recipe.iterations)
        _check(unit, [each.parameter for each in learned])
    except BaseException:
        for each in learned:
            each.give_up()
        raise
    for each in learned:
        each.finish()


def _batches(data: CalibrationData, iterations: int, size: int) -> Iterator[Tensor]:
    """Draw rows at random for each iteration, the same ones for every unit."""
    generator = torch.Generator().manual_seed(data.seed)
    for _ in range(iterations):
        yield torch.randperm(len(data), generator=generator)[:size].to(data.x.device)


def _is_learnable(grid: Grid) -> bool:
    return "scale" in grid.tensors() and grid.bits < UNLEARNED_BITS


def _check(unit: Unit, learned: list[Tensor]) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in learned):
        raise StageError(f"the reconstruction of {unit.name!r} diverged: its loss is not finite")
