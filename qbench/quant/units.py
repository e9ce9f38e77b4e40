"""What is reconstructed at a time: a block of the network, or a layer, with its inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qbench.diffusion.structures import Segment
from qbench.errors import StageError
from qbench.quant.data import CalibrationData
from qbench.quant.layers import QuantLayer
from qbench.quant.model import QuantModel
from qbench.quant.running_state import Budget, Indexed, Rows, RunningState, slices

Granularity = Literal["block", "layer"]
_BLOCKS = ("residual", "attention")


@dataclass(frozen=True)
class Unit:
    """A part of the network with what it is to be fitted to.

    Attributes:
        name: of the block or layer.
        layers: the layers in it, by name.
        taps: names of the activations in it.
        forward: computes its output for some rows, with the layers' weights and taps as they are set.
        target: what its output should be, for all rows.
    """

    name: str
    layers: dict[str, QuantLayer]
    taps: tuple[str, ...]
    forward: Callable[[Tensor], Tensor]
    target: Indexed


class Walk:
    """Goes through a network segment by segment and gives its units, in execution order, with inputs and targets.

    Residual and attention blocks are units of their own where ``granularity`` is ``block``; layers elsewhere. After a
    unit was fitted the walk goes on: whoever comes later sees what became of it.

    Args:
        model: the model.
        data: what passes through it.
        granularity: what is reconstructed at a time.
        inputs: whether a unit's inputs come from the network as it is quantized so far, or from full precision. Its
            targets are always those of full precision.

    Raises:
        StageError: the denoiser's segments are not known.
    """

    def __init__(
        self,
        model: QuantModel,
        data: CalibrationData,
        granularity: Granularity,
        inputs: Literal["quantized", "full-precision"],
    ) -> None:
        if not model.structure.segments:
            raise StageError("this denoiser's structure does not say what its blocks are, so none can be reconstructed")
        if not len(data):
            raise StageError("the calibration data has no rows, so there is nothing to reconstruct")
        self._model = model
        self._data = data
        self._granularity = granularity
        self._inputs = inputs
        self.budget = Budget(data.cache_bytes, data.scratch)
        self._order = _execution_order(model, data)

    def names(self) -> list[str]:
        """Return the names of all units, in order."""
        return [
            name
            for segment in self._model.structure.segments
            for name in ([segment.name] if self._is_block(segment) else self._layers(segment))
        ]

    def __iter__(self) -> Iterator[Unit]:
        exact = RunningState(self._model, self._data, self.budget)
        current = RunningState(self._model, self._data, self.budget)
        segments = self._model.structure.segments
        for segment in segments:
            given = current if self._inputs == "quantized" else exact
            if self._is_block(segment):
                following = self._behind(exact, segment)
                yield self._block(segment, given, following)
            else:
                for name in self._layers(segment):
                    yield self._layer(segment, name, given, exact)
                if segment is segments[-1]:
                    return
                following = self._behind(exact, segment)
            exact = following
            if self._inputs == "quantized" and segment is not segments[-1]:
                current = current.behind(segment)

    def _behind(self, exact: RunningState, segment: Segment) -> RunningState:
        with self._model.full_precision():
            return exact.behind(segment)

    def _is_block(self, segment: Segment) -> bool:
        return self._granularity == "block" and segment.kind in _BLOCKS and bool(self._layers(segment))

    def _layers(self, segment: Segment) -> list[str]:
        """Return the names of a segment's layers in execution order."""
        return [name for name in self._order if _is_within(name, segment)]

    def _block(self, segment: Segment, given: RunningState, following: RunningState) -> Unit:
        def forward(rows: Tensor) -> Tensor:
            with self._model.at(self._data.step_indices[rows]):
                return segment.run(self._model.module, given.batch(rows)).h

        taps = tuple(name for name in self._model.taps if _is_within(name, segment))
        layers = {name: self._model.layers[name] for name in self._layers(segment)}
        return Unit(segment.name, layers, taps, forward, following.h)

    def _layer(self, segment: Segment, name: str, given: RunningState, exact: RunningState) -> Unit:
        layer = self._model.layers[name]
        inputs = self._collect(segment, name, given, lambda x: x, exactly=self._inputs == "full-precision")
        target = self._collect(segment, name, exact, lambda x: layer.apply_to(x, layer.weight), exactly=True)

        def forward(rows: Tensor) -> Tensor:
            with self._model.at(self._data.step_indices[rows]):
                output: Tensor = layer(inputs[rows])
            return output

        return Unit(name, {name: layer}, (name,), forward, target)

    @torch.no_grad()
    def _collect(
        self, segment: Segment, name: str, state: RunningState, of: Callable[[Tensor], Tensor], exactly: bool
    ) -> Rows:
        """Run a segment up to a layer and keep something of the layer's input."""
        tap = self._model.taps[name]
        kept: Rows | None = None
        for rows in slices(len(self._data), self._data.batch_size):
            reached: list[Tensor] = []

            def stop(x: Tensor, reached: list[Tensor] = reached) -> None:
                reached.append(x)
                raise _Reached

            tap.observer = stop
            try:
                with self._model.at(self._data.step_indices[rows]):
                    if exactly:
                        with self._model.full_precision():
                            segment.run(self._model.module, state.batch(rows))
                    else:
                        segment.run(self._model.module, state.batch(rows))
            except _Reached:
                pass
            finally:
                tap.observer = None
            values = of(reached[0])
            kept = kept or self.budget.rows(len(self._data), values)
            kept.write(rows, values)
        assert kept is not None
        return kept


class _Reached(Exception):
    """Ends a run at the layer that it was for."""


def _is_within(name: str, segment: Segment) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in segment.modules)


@torch.no_grad()
def _execution_order(model: QuantModel, data: CalibrationData) -> list[str]:
    """Return the names of the layers that a call reaches, in the order in which it reaches them first."""
    order: dict[str, None] = {}

    def note(name: str) -> Callable[[Tensor], None]:
        return lambda x: order.setdefault(name)

    context = {name: tensor[:1] for name, tensor in data.context.items()}
    with model.observing(note):
        model(data.x[:1], data.timesteps[:1], context, data.step_indices[:1])
    return [name for name in order if name in model.layers]
