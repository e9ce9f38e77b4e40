"""What is reconstructed at a time: a block of the network, or a layer, with its inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

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
        channels: of its output.
    """

    name: str
    layers: dict[str, QuantLayer]
    taps: tuple[str, ...]
    forward: Callable[[Tensor], Tensor]
    target: Indexed
    channels: int


class Walk:
    """Goes through a network segment by segment and gives its units, in execution order, with inputs and targets.

    Residual and attention blocks are units of their own where ``granularity`` is ``block``; layers elsewhere. After a
    unit was fitted the walk goes on: whoever comes later sees what became of it. The path of the timestep may come
    first as one unit, fitted to all that it hands to the blocks; its layers are in no other unit then.

    Args:
        model: the model.
        data: what passes through it.
        granularity: what is reconstructed at a time.
        inputs: whether a unit's inputs come from the network as it is quantized so far, or from full precision. Its
            targets are always those of full precision.
        time_path: whether the path of the timestep is a unit.

    Raises:
        StageError: the denoiser's segments are not known, or the path of the timestep is asked for and is not.
    """

    def __init__(
        self,
        model: QuantModel,
        data: CalibrationData,
        granularity: Granularity,
        inputs: Literal["quantized", "full-precision"],
        time_path: bool = False,
    ) -> None:
        if not model.structure.segments:
            raise StageError("this denoiser's structure does not say what its blocks are, so none can be reconstructed")
        if not len(data):
            raise StageError("the calibration data has no rows, so there is nothing to reconstruct")
        self._model = model
        self._data = data
        self._granularity = granularity
        self._inputs = inputs
        self._time_path = model.structure.time_path if time_path else None
        self._on_time_path = frozenset(time_layers(model) if time_path else ())
        self.budget = Budget(data.cache_bytes, data.scratch)
        self._order = _execution_order(model, data)

    def names(self) -> list[str]:
        """Return the names of all units, in order."""
        first = [] if self._time_path is None else [self._time_path.name]
        return first + [
            name
            for segment in self._model.structure.segments
            for name in ([segment.name] if self._is_block(segment) else self._layers(segment))
        ]

    def __iter__(self) -> Iterator[Unit]:
        exact = RunningState(self._model, self._data, self.budget)
        current = RunningState(self._model, self._data, self.budget)
        if self._time_path is not None:
            with self._model.full_precision():
                features = exact.behind(self._time_path)
            yield self._block(self._time_path, exact, features)
            del features
        segments = self._model.structure.segments
        for segment in segments:
            given = current if self._inputs == "quantized" else exact
            if self._is_block(segment):
                with self._model.full_precision():
                    following = exact.behind(segment)
                yield self._block(segment, given, following)
            else:
                names = self._layers(segment)
                kept = _Kept(self._model, len(self._data), self.budget)
                with self._model.full_precision(), kept.looking_at(names, with_inputs=self._inputs == "full-precision"):
                    following = exact.behind(segment)
                for name in names:
                    yield self._layer(segment, name, given, kept)
            exact = following
            if self._inputs == "quantized" and segment is not segments[-1]:
                current = current.behind(segment)

    def _is_block(self, segment: Segment) -> bool:
        return self._granularity == "block" and segment.kind in _BLOCKS and bool(self._layers(segment))

    def _layers(self, segment: Segment) -> list[str]:
        """Return the names of a segment's layers in execution order."""
        return [name for name in self._order if self._is_of(name, segment)]

    def _is_of(self, name: str, segment: Segment) -> bool:
        """Whether a layer or tap belongs to a segment, which those on the path of the timestep do to that alone."""
        if segment is self._time_path or name not in self._on_time_path:
            return _is_within(name, segment)
        return False

    def _block(self, segment: Segment, given: RunningState, following: RunningState) -> Unit:
        def forward(rows: Tensor) -> Tensor:
            with self._model.at(self._data.step_indices[rows]):
                return segment.run(self._model.module, given.batch(rows, segment.reads)).h

        taps = tuple(name for name in self._model.taps if self._is_of(name, segment))
        layers = {name: self._model.layers[name] for name in self._layers(segment)}
        shape = following.h[slice(0, 1)].shape
        return Unit(segment.name, layers, taps, forward, following.h, shape[1] if len(shape) == 4 else shape[-1])

    def _layer(self, segment: Segment, name: str, given: RunningState, kept: _Kept) -> Unit:
        layer = self._model.layers[name]
        inputs = kept.inputs.pop(name) if name in kept.inputs else self._inputs_of(name, segment, given)

        def forward(rows: Tensor) -> Tensor:
            with self._model.at(self._data.step_indices[rows]):
                output: Tensor = layer(inputs[rows])
            return output

        return Unit(name, {name: layer}, (name,), forward, kept.outputs.pop(name), layer.weight.shape[0])

    @torch.no_grad()
    def _inputs_of(self, name: str, segment: Segment, state: RunningState) -> Rows:
        """Run a segment up to a layer, as the model is set now, and keep the layer's inputs."""
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
                    segment.run(self._model.module, state.batch(rows, segment.reads))
            except _Reached:
                pass
            finally:
                tap.observer = None
            kept = kept or self.budget.rows(len(self._data), reached[0])
            kept.write(rows, reached[0])
        assert kept is not None
        return kept


class _Kept:
    """What goes into some layers and comes out of them while all rows pass, batch after batch.

    Args:
        model: the model.
        count: of all rows.
        budget: what is kept is counted against it.

    Attributes:
        inputs: by the layers' names.
        outputs: by the layers' names.
    """

    def __init__(self, model: QuantModel, count: int, budget: Budget) -> None:
        self._model = model
        self._count = count
        self._budget = budget
        self.inputs: dict[str, Rows] = {}
        self.outputs: dict[str, Rows] = {}

    @contextmanager
    def looking_at(self, names: list[str], with_inputs: bool) -> Iterator[None]:
        """Keep what passes while the context lasts.

        Args:
            names: of the layers.
            with_inputs: whether their inputs are kept too.
        """
        hooks = [self._model.layers[name].register_forward_hook(self._hook(name, with_inputs)) for name in names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, name: str, with_inputs: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        done = 0

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal done
            rows = slice(done, done + len(output))
            if rows.stop > self._count:
                raise StageError(f"the layer {name!r} is called more than once, so it cannot be reconstructed alone")
            self._write(self.outputs, name, rows, output)
            if with_inputs:
                self._write(self.inputs, name, rows, inputs[0])
            done = rows.stop

        return keep

    def _write(self, rooms: dict[str, Rows], name: str, rows: slice, values: Tensor) -> None:
        if name not in rooms:
            rooms[name] = self._budget.rows(self._count, values)
        rooms[name].write(rows, values)


class _Reached(Exception):
    """Ends a run at the layer that it was for."""


def time_layers(model: QuantModel) -> list[str]:
    """Return the names of the layers on the path of the timestep, those of its embedding first.

    Args:
        model: the model.

    Raises:
        StageError: that path is not known.
    """
    path = model.structure.time_path
    if path is None:
        raise StageError("this denoiser's structure does not say which layers its timestep passes through")
    return [name for module in path.modules for name in model.layers if _is_in(name, module)]


def _is_within(name: str, segment: Segment) -> bool:
    return any(_is_in(name, module) for module in segment.modules)


def _is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


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
