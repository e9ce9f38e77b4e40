"""The denoiser behind torch.compile. Its own backend needs a minute of a C++ compiler: see tests/benchmarks."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qbench.bits import BitWidth
from qbench.errors import StageError
from qbench.plugins import WORKLOADS
from qbench.quant import AffineGrid, DynamicGrid, QuantModel, SplitGrid, StepGrid
from qbench.stages import compiled
from qbench.stages.compiled import Compiled
from qbench.stages.computing import compute
from qbench.stages.quantized import Quantized
from qbench.stages.sample import FILE, Sample
from qbench.stages.stage import Runtime, Work
from qbench.workload import Workload

COMPILE = torch.compile
SCALAR = AffineGrid(8, torch.tensor(0.02), torch.tensor(128.0))
GRIDS = (SCALAR, StepGrid(8, torch.full((4,), 0.02), torch.full((4,), 128.0)), DynamicGrid(8))


@pytest.fixture(autouse=True)
def _whole_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trace as always, run what was traced as it is, and make it an error if it comes in parts."""

    def whole(function: Any, dynamic: bool, mode: str | None) -> Any:
        return COMPILE(function, backend="eager", fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(compiled.torch, "compile", whole)
    yield
    torch._dynamo.reset()


@pytest.fixture
def micro(fake_plugins: Path) -> Workload:
    workload = WORKLOADS.load("micro")
    assert issubclass(workload, Workload)
    return workload(WORKLOADS.entry("micro"), workload.settings_class())


def frozen(name: str) -> QuantModel:
    workload = WORKLOADS.load(name)
    assert issubclass(workload, Workload)
    loaded = workload(WORKLOADS.entry(name), workload.settings_class()).load()
    model = QuantModel(loaded.module.eval().requires_grad_(False), loaded.structure, BitWidth(32, 8))
    for number, tap in enumerate(model.taps.values()):
        tap.grid = GRIDS[number % len(GRIDS)]
    model.layers["conv_in"].tap.grid = SplitGrid(1, SCALAR, SCALAR)
    model.freeze()
    return model


@torch.inference_mode()
def test_it_is_one_graph_with_every_kind_of_grid_and_knows_the_step() -> None:
    model = frozen("tiny-ddim")
    called = Compiled(model)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([500, 500])
    for index in (0, 3):
        steps = torch.full((2,), index)
        expected = model(x, timesteps, None, steps)
        torch.testing.assert_close(called(x, timesteps, None, steps), expected)


def test_images_are_those_of_the_same_batches_one_after_the_other(micro: Workload, tmp_path: Path) -> None:
    """Traced code is not called by several threads, and the last batch may be smaller."""
    found = []
    for number, runtime in enumerate((Runtime("cpu", 3), Runtime("cpu", 3, compiled=True))):
        folder = tmp_path / str(number)
        folder.mkdir()
        work = Work({}, folder, runtime, lambda amount: None)
        compute(Sample(micro_without_pause(micro), 0, 0, 7, Quantized()), work)
        found.append((np.load(folder / FILE), work.made_with))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert [each["compiled"] for _, each in found[1:]] == [True]
    assert "compiled" not in found[0][1]


def micro_without_pause(workload: Workload) -> Workload:
    """Its denoiser stops where a test says so, which cannot be traced."""
    load = type(workload).load

    class Quiet(type(workload)):  # type: ignore[misc]
        def load(self) -> Any:
            loaded = load(self)
            loaded.module._pause = lambda place: None
            return loaded

    return Quiet(workload.entry, workload.settings)


def test_what_cannot_be_compiled_is_one_sentence(micro: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')")

    monkeypatch.setattr(compiled.torch, "compile", lambda function, **_: COMPILE(function, backend=refuse))
    called = Compiled(frozen("tiny-ddim"))
    with pytest.raises(
        StageError, match=r"(?s)^torch.compile failed .*No working C\+\+ compiler.*leave --compile out$"
    ):
        called(torch.zeros(1, 4, 8, 8), torch.tensor([3]), None, torch.tensor([0]))


def test_outputs_of_graphs_are_copied_and_steps_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph writes to the same place each time; PLMS keeps four of its outputs."""
    output, marks = torch.zeros(1, 1), []

    def call(x: Tensor, *_: Any) -> Tensor:
        return output.add_(1)

    modes: list[Any] = []
    monkeypatch.setattr(compiled.torch, "compile", lambda function, dynamic, mode: [modes.append(mode), call][1])
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", partial(marks.append, 1))

    class Model:
        def __call__(self, *_: Any) -> Tensor:
            return output

    called = Compiled(Model(), cuda_graphs=True)  # type: ignore[arg-type]
    first, second = (called(torch.zeros(1, 1), torch.tensor([1])) for _ in range(2))
    assert (float(first), float(second), len(marks), modes) == (1.0, 2.0, 2, ["reduce-overhead"])
