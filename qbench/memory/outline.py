"""A denoiser that has shapes and no values, and the passes of calibration over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from qbench.bits import BitWidth
from qbench.diffusion.structures import State
from qbench.memory.live_bytes import FusedAttention, LiveBytes
from qbench.quant.data import CalibrationData
from qbench.quant.grid import AffineGrid
from qbench.quant.hessians import hessians_of
from qbench.quant.memory_profile import MemoryProfile
from qbench.quant.model import QuantModel
from qbench.quant.recipes import ActivationRanges, RoundingRecipe, StepSizeRecipe
from qbench.quant.round_to_nearest import AVERAGED_ROWS
from qbench.quant.running_state import Budget, Rows
from qbench.quant.sensitivity import DRAWS
from qbench.quant.units import Unit, Walk

if TYPE_CHECKING:
    from qbench.workload import Skeleton

UNLIMITED = 1 << 62
BLOCKS = ("residual", "attention")
ROUNDING_COPIES = 7
"""How often a weight whose rounding is learned is in memory beside itself and its gradient: ``SoftRounding`` keeps
floor, middle, alpha and 2h - 1, and there are alpha's gradient and the two moments of Adam."""
SEARCH_COPIES = 2
"""How often an activation is in memory beside itself while the range of least error is searched."""
WEIGHT_COPIES = 4
"""The same for a weight while its grid is searched."""
INVERSE_COPIES = 3
"""How often the Hessian of a layer is in memory in float64 while it is inverted."""
STEP_BYTES = 16
"""Timestep and step index of a row."""


@dataclass(frozen=True)
class Amount:
    """How much is calibrated on.

    Attributes:
        rows: of the calibration data.
        batch_size: rows that pass the network at a time.
    """

    rows: int
    batch_size: int

    @property
    def batch(self) -> int:
        """Rows of the largest batch."""
        return min(self.rows, self.batch_size)


@dataclass(frozen=True)
class Moment:
    """What is held at one moment, beside the model and the calibration data.

    Attributes:
        what: what goes on.
        work: bytes of activations, gradients and what is learned.
        running_state: bytes that are kept of all rows, wherever they are kept.
    """

    what: str
    work: int
    running_state: int = 0


class Outline:
    """A denoiser on the meta device: passes over it compute nothing, and its tensors are counted.

    The walk over blocks, the running state and the layers are those that calibration itself uses. What it does with
    them, learning and observing, is repeated here by operations on the same shapes.

    Args:
        skeleton: the denoiser; its layers are wrapped in place.
        latent_shape: shape of what it works on, without the batch axis.

    Attributes:
        parameter_bytes: of all parameters.
        weight_bytes: of the weights among them that can be quantized.
        row_bytes: of a row of calibration data.

    Raises:
        StageError: it cannot be wrapped.
    """

    def __init__(self, skeleton: Skeleton, latent_shape: tuple[int, ...]) -> None:
        self._model = _ModelWithoutValues(skeleton.module.requires_grad_(False), skeleton.structure, BitWidth(4, 8))
        self._latent_shape = latent_shape
        self._context = skeleton.context
        self.parameter_bytes = _bytes(skeleton.module.parameters())
        self.weight_bytes = _bytes(layer.weight for layer in self._model.layers.values())
        row = self._data(Amount(1, 1))
        self.row_bytes = _bytes([row.x, *row.context.values()]) + STEP_BYTES

    def learning(self, profile: MemoryProfile, amount: Amount) -> list[Moment]:
        """Return the moments of learning roundings or step sizes, or of taking Hessians, unit by unit.

        Raises:
            StageError: the denoiser's blocks are not known.
        """
        recipe = profile.recipe
        assert recipe is not None or profile.hessians
        found = [self._through_network(amount)] if profile.through_network else []
        kept = sum(moment.running_state for moment in found)
        data = self._data(amount)
        is_rounding = not isinstance(recipe, StepSizeRecipe)
        inputs = nullcontext() if is_rounding else self._input_grids()
        with inputs, self._counting(data) as live:
            walk = Walk(self._model, data, profile.granularity, "quantized" if is_rounding else "full-precision")
            budget = walk.budget = _UncountedBudget(live)
            for unit in walk:
                rows = kept + budget.most * amount.rows // amount.batch
                found.append(Moment(f"a batch of {amount.batch} on its way to {unit.name}", live.peak, rows))
                live.start_over()
                if recipe is None:
                    learned = self._invert(unit, data)
                else:
                    learned = self._learn(unit, recipe, profile.through_network, amount)
                work = learned + live.peak
                rows = kept + budget.used * amount.rows // amount.batch
                found.append(Moment(f"the {'layer' if unit.name in unit.layers else 'block'} {unit.name}", work, rows))
                budget.most = budget.used
                live.start_over()
                del unit  # what it holds would stay while the next unit is collected
        return found

    def searching(self) -> Moment:
        """Return the moment of choosing a grid for the largest weight, which takes no data."""
        largest = max(_bytes([layer.weight]) for layer in self._model.layers.values())
        return Moment("the grid of the largest weight", WEIGHT_COPIES * largest)

    def observing(self, ranges: ActivationRanges, amount: Amount) -> Moment:
        """Return the moment of observing activations, the probabilities of attention among them."""
        if ranges.granularity == "token":
            return Moment("no data, as each token has its own range", 0)
        is_drawn = ranges.samples is not None or ranges.estimator == "running-average"
        rows = min(amount.rows, ranges.samples or amount.rows)
        data = self._data(Amount(rows, AVERAGED_ROWS if ranges.estimator == "running-average" else amount.batch_size))
        copies = SEARCH_COPIES if ranges.estimator in ("mse", "percentile") else 0

        def look(x: Tensor) -> None:
            _ = [torch.empty_like(x) for _ in range(copies)]

        with self._counting(data) as live, torch.no_grad(), self._model.observing(lambda _: look):
            data.run_through(self._model)
        return Moment(f"a batch of {len(data)} observed", live.peak + (self.row_bytes * rows if is_drawn else 0))

    def _learn(self, unit: Unit, recipe: RoundingRecipe | StepSizeRecipe, is_weighted: bool, amount: Amount) -> int:
        """Run an iteration of learning; return the bytes of what is learned beside the weights themselves."""
        if recipe.loss == "relative":
            with torch.no_grad():
                unit.forward(_rows(amount.batch))
        learned = 0
        if isinstance(recipe, RoundingRecipe):
            for layer in unit.layers.values():
                layer.learned = torch.empty_like(layer.weight).requires_grad_(True)
                learned += ROUNDING_COPIES * _bytes([layer.weight])
        rows = _rows(min(recipe.batch_size, amount.rows))
        output, target = unit.forward(rows), unit.target[rows]
        if isinstance(recipe, RoundingRecipe) and not is_weighted:
            loss = functional.mse_loss(output, target)
        else:
            power = recipe.power if isinstance(recipe, StepSizeRecipe) else 2.0
            error = (output - target).abs().pow(power)
            loss = (error * torch.empty_like(error) if is_weighted else error).mean()
        torch.autograd.backward(loss)
        for layer in unit.layers.values():
            layer.learned = None
        return learned

    def _invert(self, unit: Unit, data: CalibrationData) -> int:
        """Take the Hessians of a unit; return the bytes of inverting the largest of them."""
        found = hessians_of(self._model, unit, data)
        return max((2 * INVERSE_COPIES * _bytes([each.value]) for each in found.values()), default=0)

    def _through_network(self, amount: Amount) -> Moment:
        """Gradients of the denoiser's output by the outputs of all blocks, as ``block_sensitivities`` takes them."""
        data = self._data(amount)
        outputs = []
        with self._counting(data) as live, torch.enable_grad(), self._model.full_precision():
            state = State(data.x.clone().requires_grad_(True), data.timesteps, context=data.context)
            for segment in self._model.structure.segments:
                state = segment.run(self._model.module, state)
                if segment.kind in BLOCKS:
                    outputs.append(state.h)
            squares = [torch.zeros_like(output) for output in outputs]
            residuals = torch.empty((DRAWS, *state.h.shape), device="meta")
            for residual in residuals[:2]:  # the gradients of one draw are there until those of the next one are
                gradients = torch.autograd.grad(state.h, outputs, residual, retain_graph=True)
            del gradients
        rows = _bytes(squares) * amount.rows // amount.batch
        return Moment(f"gradients of a batch of {amount.batch} through the whole network", live.peak, rows)

    def _data(self, amount: Amount) -> CalibrationData:
        """Return one batch of rows without values."""

        def row(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty((amount.batch, *shape), dtype=dtype, device="meta")

        return CalibrationData(
            x=row(*self._latent_shape),
            timesteps=row(dtype=torch.long),
            step_indices=row(dtype=torch.long),
            batch_size=amount.batch_size,
            report=lambda share: None,
            context={name: row(*shape) for name, shape in self._context.items()},
        )

    @contextmanager
    def _counting(self, data: CalibrationData) -> Iterator[LiveBytes]:
        module = self._model.module
        given = (data.x, data.timesteps, data.step_indices, *data.context.values())
        with LiveBytes([*module.parameters(), *module.buffers(), *given]) as live, FusedAttention():
            yield live

    @contextmanager
    def _input_grids(self) -> Iterator[None]:
        """Let every activation be rounded to a step size that is learned, while the context lasts."""
        for tap in self._model.taps.values():
            scale = torch.empty((), device="meta", requires_grad=True)
            tap.grid = AffineGrid(tap.bits, scale, torch.empty((), device="meta"))
        try:
            yield
        finally:
            for tap in self._model.taps.values():
                tap.grid = None


class _ModelWithoutValues(QuantModel):
    def _check_every_parameter_is_accounted_for(self) -> None:
        """Check nothing: whether weights are finite cannot be asked where there are none."""


class _UncountedBudget(Budget):
    """Keeps all rows on the meta device, apart from what is counted as work.

    Attributes:
        most: the most bytes there were.
    """

    def __init__(self, live: LiveBytes) -> None:
        super().__init__(UNLIMITED)
        self._live = live
        self.most = 0

    def rows(self, count: int, like: Tensor) -> Rows:
        with self._live.paused():
            rows = super().rows(count, like)
        self.most = max(self.most, self.used)
        return rows


def _rows(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long, device="meta")


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
