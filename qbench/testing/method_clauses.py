"""The clauses of a method's contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qbench.bits import FULL_PRECISION_BITS, LOW_BITS, SOFTMAX_BITS, BitWidth
from qbench.quant import ChannelScaledGrid, DynamicGrid, Grid, QuantModel, SplitGrid, StepGrid, coverage
from qbench.testing.method_run import EVALUATION_ROWS, MethodSubject, Run, output
from qbench.testing.plugin_clauses import SHARED
from qbench.testing.report import Clause
from qbench.testing.small_network import rows, small_census

NEIGHBOURS = 3.0
"""What the other images of a batch are multiplied with: whatever reaches over the batch then shows."""


def _claim_faults(subject: MethodSubject) -> Iterator[str]:
    found, method = subject.found, subject.make()
    for what, claimed, offered in (
        ("weight", found.weight_bits, LOW_BITS),
        ("activation", found.activation_bits, LOW_BITS),
        ("softmax", found.softmax_bits, SOFTMAX_BITS),
    ):
        strange = [each for each in claimed if each not in offered]
        if strange:
            yield f"{what}_bits holds {strange[0]!r}, which no suite can ask for"
        for each in set(offered) - set(claimed):
            bits = _only(what, each)
            if method.refusal(bits) is None:
                yield f"{bits} is not refused, and {what}_bits does not claim it"
    for each in LOW_BITS:
        refusal = method.refusal(BitWidth(each, each))
        if refusal is not None and not (isinstance(refusal, str) and refusal.strip()):
            yield f"refusal() returns {refusal!r} for W{each}A{each}, neither None nor a sentence"
    if not subject.widths:
        yield "it refuses all bits that it claims"


def _only(what: str, bits: int) -> BitWidth:
    full = FULL_PRECISION_BITS
    if what == "weight":
        return BitWidth(bits, full)
    return BitWidth(full, bits) if what == "activation" else BitWidth(full, full, bits)


def _run_faults(subject: MethodSubject) -> Iterator[str]:
    yield from (run.error for run in subject.runs if run.error)


def _grid_faults(subject: MethodSubject) -> Iterator[str]:
    for run in subject.runs:
        yield from run.grid_faults


def _process_faults(subject: MethodSubject) -> Iterator[str]:
    for run in subject.runs:
        yield from (f"it changes {what}" for what in run.changed)


def _finite_faults(subject: MethodSubject) -> Iterator[str]:
    for run in subject.runs:
        for name, tensor in run.sampling.module.state_dict().items():
            # What a library's tensor holds was looked at when it was stored.
            if type(tensor) is Tensor and not bool(tensor.isfinite().all()):
                yield f"at {run.bits} {name!r} holds NaN or infinity"
        if not bool(output(run.sampling).isfinite().all()):
            yield f"at {run.bits} the quantized network puts out NaN or infinity"


def _coverage_faults(subject: MethodSubject) -> Iterator[str]:
    for run in subject.runs:
        for target, model in run.models.items():
            yield from (f"at {run.bits} its {target}: {fault}" for fault in _wrapper_faults(model))
        counted = set(coverage(run.loaded, small_census()).left_out)
        strange = sorted(counted ^ set(run.last.left_out()))
        if strange:
            yield f"at {run.bits} {strange[0]!r} is left out in the method's hands or when it is loaded, not in both"
    yield from _level_faults(subject.lowest)


def _wrapper_faults(model: QuantModel) -> Iterator[str]:
    """Yield what computes with something else than the grid that coverage counts."""
    for name, layer in model.layers.items():
        if model.module.get_submodule(name) is not layer or "forward" in vars(layer):
            yield f"the layer {name!r} was replaced behind the model's back, which coverage does not see"
        if layer.learned is not None:
            yield f"the layer {name!r} still computes with what it learned, not with its grid"
        if not layer.tap.enabled:
            yield f"the layer {name!r} was left switched off, so that its grids count and do nothing"
        grid = layer.weight_grid
        if grid is None:
            if not torch.equal(layer.rounded, layer.weight):
                yield f"the weight of {name!r} is rounded and has no grid"
            continue
        integers = grid.quantize(layer.rounded)
        if not torch.equal(grid.dequantize(integers), layer.rounded):
            yield f"the weight of {name!r} has values between the {2**grid.bits} of its grid"


@torch.no_grad()
def _level_faults(run: Run) -> Iterator[str]:
    """Yield activations that take more values than their grid has."""
    model = run.loaded
    seen: dict[str, list[Tensor]] = {name: [] for name in model.taps}
    data = rows(EVALUATION_ROWS, seed=2)
    with model.observing(lambda name: lambda x: seen[name].append(x.detach().clone())):
        output(model, data)
    grids = {name: tap.grid for name, tap in model.taps.items() if tap.grid is not None}
    for name, grid in grids.items():
        levels = max((_levels(grid, x, data.step_indices) for x in seen[name]), default=0)
        if levels > 2**grid.bits:
            yield f"at {run.bits} the activation {name!r} takes {levels} values on a grid of {2**grid.bits}"


def _levels(grid: Grid, x: Tensor, steps: Tensor) -> int:
    """Return how many values a grid gives at most to what shares a scale."""
    if isinstance(grid, ChannelScaledGrid):
        return _levels(grid.inner, x / grid.factor, steps)
    if isinstance(grid, SplitGrid):
        halves = ((grid.first, x[:, : grid.index]), (grid.second, x[:, grid.index :]))
        return max(_levels(each, half, steps) for each, half in halves)
    rounded = grid(x, steps)
    parts: Sequence[Tensor] = (rounded,)
    if isinstance(grid, StepGrid):
        parts = [rounded[steps == step] for step in set(steps.tolist())]
    elif isinstance(grid, DynamicGrid):
        parts = rounded.flatten(-grid.axes).flatten(0, -2).unbind()
    return max(len(set(part.flatten().tolist())) for part in parts)


def _storage_faults(subject: MethodSubject) -> Iterator[str]:
    for run in subject.runs:
        if "weights" in run.models:
            for name, layer in run.models["weights"].layers.items():
                if not torch.equal(layer.rounded, run.loaded.layers[name].rounded):
                    yield f"at {run.bits} the weight of {name!r} is another one when it was stored and loaded"
        if not torch.equal(output(run.last), output(run.loaded)):
            yield f"at {run.bits} what was stored and loaded gives another output"
            continue
        run.last.freeze()
        if not torch.equal(output(run.last), output(run.sampling)):
            yield f"at {run.bits} what was stored, loaded and folded for sampling gives another output"


def _repetition_faults(subject: MethodSubject) -> Iterator[str]:
    first = subject.lowest
    second = subject.run(first.bits, seed=1)
    if second.error:
        yield f"the second time, {second.error}"
        return
    for target, content in first.files.items():
        if second.files.get(target) != content:
            yield f"at {first.bits} its {target} differ between two runs with the same data"


@torch.no_grad()
def _neighbour_faults(subject: MethodSubject) -> Iterator[str]:
    for run in subject.runs:
        model = run.sampling
        data = rows(EVALUATION_ROWS, seed=2)
        others = data.x.clone()
        others[1:] *= NEIGHBOURS
        if not torch.equal(output(model, data)[0], output(model, replace(data, x=others))[0]):
            yield f"at {run.bits} the first image changes with the others of its batch"


CLAUSES: tuple[Clause[MethodSubject], ...] = (
    *SHARED,
    Clause(
        "claims",
        "Let weight_bits, activation_bits and softmax_bits say what it can do, and refusal() say the rest in words.",
        _claim_faults,
        is_ground=True,
    ),
    Clause(
        "runs",
        "It must run at all bits that it claims: for weights and for activations it is made anew, and it gets what "
        "calibration() asked for or None.",
        _run_faults,
        is_ground=True,
    ),
    Clause(
        "bits",
        "Take bits from layer.bits and tap.bits, not from the cell's, skip those that have 32, and use the grids of "
        "qbench.quant; replace layers while weights are quantized.",
        _grid_faults,
        is_ground=True,
    ),
    Clause(
        "coverage",
        "What is quantized must be told by weight_grid and tap.grid alone; leave layers out by giving them no grid.",
        _coverage_faults,
    ),
    Clause(
        "storage",
        "Whatever the quantized network computes with must be in its parameters, weight grids and tap grids.",
        _storage_faults,
    ),
    Clause(
        "repeatable",
        "Draw at random with torch.Generator().manual_seed(data.seed), and keep nothing between runs.",
        _repetition_faults,
    ),
    Clause(
        "neighbours",
        "Let nothing reduce over the batch axis; DynamicGrid takes its ranges within an image.",
        _neighbour_faults,
    ),
    Clause(
        "process",
        "Use a torch.Generator of its own and context managers, and set nothing global.",
        _process_faults,
    ),
    Clause(
        "finite",
        "Look for ranges of width 0 and divisions by it; biases and norms may change, but not to NaN.",
        _finite_faults,
    ),
)
