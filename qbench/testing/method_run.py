"""A method at work on the small network, from stage to stage as in a suite: each with a model and method of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from qbench.bits import FULL_PRECISION_BITS, BitWidth
from qbench.calibration import Request
from qbench.diffusion.correction_file import save_correction
from qbench.diffusion.step_correction import StepCorrection
from qbench.errors import StageError
from qbench.method import CalibrationData, Method, Target
from qbench.quant import QuantModel
from qbench.quant.packing import (
    load_input_grids,
    load_weights,
    save_input_grids,
    save_weights,
)
from qbench.stages.inspection import inspect, inspect_replacements
from qbench.testing.process_state import restored, stir
from qbench.testing.report import raised
from qbench.testing.small_network import LATENT_SHAPE, STEPS, rows, small_model
from qbench.testing.subject import Subject

CALIBRATION_ROWS = 32
EVALUATION_ROWS = 8


@dataclass
class Run:
    """What a method did at some bits.

    Attributes:
        bits: of the cell.
        boundary_bits: weight bits of the first and last layer.
        error: what was raised, in one line; nothing else is to be relied on then.
        grid_faults: what is wrong with grids; nothing is stored then.
        changed: what of the process's state was changed.
        models: by target, the model as the method left it.
        files: by target, what was stored.
    """

    bits: BitWidth
    boundary_bits: int
    error: str = ""
    grid_faults: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    models: dict[Target, QuantModel] = field(default_factory=dict)
    files: dict[Target, bytes] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether it went through."""
        return not self.error and not self.grid_faults

    @property
    def last(self) -> QuantModel:
        """The model as the method left it in the end."""
        return self.models["activations" if "activations" in self.models else "weights"]

    @cached_property
    def loaded(self) -> QuantModel:
        """The same from what was stored."""
        return _loaded(self.bits, self.boundary_bits, self.files)

    @cached_property
    def sampling(self) -> QuantModel:
        """The same once more, frozen, as a suite samples with it."""
        model = _loaded(self.bits, self.boundary_bits, self.files)
        model.freeze()
        return model


class MethodSubject(Subject[Method]):
    """A method with its settings, and its runs."""

    @cached_property
    def widths(self) -> tuple[BitWidth, ...]:
        """The bits it is examined at: each that it claims and does not refuse, alone and together."""
        found, full = self.found, FULL_PRECISION_BITS
        weights, activations, softmax = map(sorted, (found.weight_bits, found.activation_bits, found.softmax_bits))
        count = max(len(weights), len(activations))
        columns = (cycle(weights or [full]), cycle(activations or [full]), cycle(softmax or [None]))
        together = [BitWidth(*each) for each in islice(zip(*columns, strict=False), count)]
        alone = [BitWidth(each, full) for each in weights[:1]]
        alone += [BitWidth(full, each, softmax[-1] if softmax else None) for each in activations[:1]]
        if not all(map(self.accepts, together)):
            alone = [BitWidth(each, full) for each in weights] + [BitWidth(full, each) for each in activations]
        alone += [BitWidth(full, full, each) for each in softmax[count:-1]]
        accepted = [each for each in (*together, *alone) if not each.is_full_precision and self.accepts(each)]
        return tuple(dict.fromkeys(accepted))

    def accepts(self, bits: BitWidth) -> bool:
        """Whether the method has a row at some bits."""
        method = self.make()
        return method.stands_at(bits, 0) and method.refusal(bits) is None

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """One run at each width."""
        return tuple(map(self.run, self.widths))

    @property
    def lowest(self) -> Run:
        """The run that quantizes most, weights and activations alike if the method does both."""
        return min(self.runs, key=lambda run: (run.bits.weights + run.bits.activations, str(run.bits)))

    def run(self, bits: BitWidth, seed: int = 0) -> Run:
        """Quantize the small network.

        The first and last layer get other bits than the rest, and the process's random numbers are set to ``seed``.
        """
        claimed = sorted(self.found.weight_bits) or [8]
        run = Run(bits, claimed[0] if bits.weights != claimed[0] else claimed[-1])
        with restored():
            stir(seed)
            if bits.quantizes_weights:
                self._weights(run)
            if bits.quantizes_activations and run.is_sound:
                self._activations(run)
            if self.found.corrects and run.is_sound:
                self._correction(run)
        return run

    def _weights(self, run: Run) -> None:
        entangled = self.found.weights_depend_on_activations
        bits = run.bits if entangled else BitWidth(run.bits.weights, FULL_PRECISION_BITS)
        model = small_model(bits, run.boundary_bits)
        self._work(run, "weights", model, bits)
        if run.is_sound:
            run.files["weights"] = _written(lambda path: save_weights(model, path))

    def _activations(self, run: Run) -> None:
        model = _loaded(run.bits, run.boundary_bits, run.files)
        self._work(run, "activations", model, run.bits)
        if run.is_sound:
            run.files["activations"] = _written(lambda path: save_input_grids(model, path))

    def _correction(self, run: Run) -> None:
        model = _loaded(run.bits, run.boundary_bits, run.files)
        with self._watched(run, "correction") as method:
            found = method.correct(model, _data(method, "correction"), run.bits)
            if not isinstance(found, StepCorrection):
                raise TypeError(f"correct() returned {found!r}, which is no StepCorrection")
            found.check(STEPS, LATENT_SHAPE[0])
            run.files["correction"] = _written(lambda path: save_correction(found, path))

    def _work(self, run: Run, target: Target, model: QuantModel, bits: BitWidth) -> None:
        run.models[target] = model
        replaced = {name: layer.replacement for name, layer in model.layers.items()}
        with self._watched(run, target) as method:
            data = _data(method, target)
            quantize = method.quantize_weights if target == "weights" else method.quantize_activations
            quantize(model, data, bits)
        if run.error:
            return
        try:
            inspect(model, method)
            if target == "activations":
                inspect_replacements(model, replaced, method)
        except StageError as error:
            run.grid_faults.append(f"at {run.bits} {error}")

    @contextmanager
    def _watched(self, run: Run, target: Target) -> Iterator[Method]:
        """Let a new instance of the method work: what it raises and what it changes of the process is noted."""
        changed: list[str] = []
        try:
            with restored() as changed:
                yield self.make()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # the method's own code, whatever it raises
            run.error = f"at {run.bits} its {target}: {raised(error)}"
        run.changed += changed


def _data(method: Method, target: Target) -> CalibrationData | None:
    request = method.calibration(target)
    if request is None:
        return None
    if not isinstance(request, Request):
        raise TypeError(f"calibration({target!r}) returned {request!r}, which is no calibration request")
    return rows(CALIBRATION_ROWS, seed=1)


def _written(save: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        save(path)
        return path.read_bytes()


def _loaded(bits: BitWidth, boundary_bits: int, files: dict[Target, bytes]) -> QuantModel:
    model = small_model(bits, boundary_bits)
    with tempfile.TemporaryDirectory() as folder:
        for target, load in (("weights", load_weights), ("activations", load_input_grids)):
            if target in files:
                path = Path(folder) / target
                path.write_bytes(files[target])
                load(model, path)
    return model


@torch.no_grad()
def output(model: QuantModel, data: CalibrationData | None = None) -> Tensor:
    """Return what a model makes of some rows."""
    data = data or rows(EVALUATION_ROWS, seed=2)
    return model(data.x, data.timesteps, data.context, data.step_indices)
