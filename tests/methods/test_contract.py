"""Every method that comes with qbench keeps the contract that it asks of others."""

from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.bits import BitWidth
from qbench.plugins import METHODS
from qbench.quant import (
    AffineGrid,
    ChannelScaledGrid,
    DynamicGrid,
    QuantModel,
    SplitGrid,
    StepGrid,
    min_max_per_channel,
)
from qbench.testing import check_method
from qbench.testing.method_clauses import CLAUSES, _levels
from qbench.testing.small_network import small_model, small_module

ROUNDING = {"rounding": {"iterations": 1, "batch_size": 4}}
LEARNING = {**ROUNDING, "step_sizes": {"iterations": 1, "batch_size": 4}}
SEARCHING = {"weights": {"candidates": 3}, "activations": {"candidates": 3}}
QUICK: dict[str, dict[str, Any]] = {
    "adaround": ROUNDING,
    "brecq": LEARNING,
    "mse": SEARCHING,
    "ptq4dm": SEARCHING,
    "ptqd": {**LEARNING, "activations": {"candidates": 3}},
    "qdiffusion": LEARNING,
    "svdquant": {"rank": 2, "iterations": 3},
    "tfmq-dm": {**ROUNDING, "weights": {"candidates": 3}},
}
"""Settings that take little time, for those methods that take much."""
SLOW = ("brecq", "ptqd")
LIBRARIES = {"torchao": "torchao", "quanto": "optimum"}
"""The packages that adapters need."""
ALL = tuple(clause.name for clause in CLAUSES)
OWN = sorted({entry.name for entry in METHODS.entries() if entry.package == "qbench"} - {"external"})


def marks(name: str) -> list[pytest.MarkDecorator]:
    found = [pytest.mark.slow] if name in SLOW else []
    if name in LIBRARIES:
        is_missing = find_spec(LIBRARIES[name]) is None
        found.append(pytest.mark.skipif(is_missing, reason=f"needs the optional package behind {name}"))
    return found


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in OWN])
def test_built_in_methods_keep_the_contract(name: str, one_thread: None) -> None:
    assert check_method(name, settings=QUICK.get(name)).passed == ALL


@pytest.mark.parametrize(
    ("name", "preset", "settings"),
    [
        ("smoothquant", None, {"activations": {"granularity": "token"}}),
        ("smoothquant", None, {"activations": {"granularity": "step"}}),
        ("svdquant", "dynamic", {"rank": 2, "iterations": 1}),
    ],
)
def test_with_smoothed_ranges_of_each_token_and_step_too(
    name: str, preset: str | None, settings: dict[str, Any], one_thread: None
) -> None:
    assert check_method(name, preset=preset, settings=settings).passed == ALL


def unrounded(grid: Any) -> Any:
    """Return a grid of the same kind that lets everything through."""

    class Unrounded(type(grid)):  # type: ignore[misc]
        def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
            return x

    return Unrounded(**{each.name: getattr(grid, each.name) for each in fields(grid)})


@pytest.mark.parametrize(
    ("grid", "shape"),
    [
        (AffineGrid(2, torch.tensor(0.5), torch.tensor(2.0)), (2, 4, 3, 3)),
        (StepGrid(2, torch.tensor([0.5, 0.7]), torch.tensor([2.0, 1.0])), (2, 4, 3, 3)),
        (DynamicGrid(2), (2, 5, 12)),
        (DynamicGrid(2, 3), (2, 4, 3, 3)),
    ],
)
def test_the_values_of_every_kind_of_grid_are_counted(grid: Any, shape: tuple[int, ...]) -> None:
    x, steps = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    factor = torch.linspace(0.5, 2, 12) if len(shape) == 3 else torch.linspace(0.5, 2, 4).view(4, 1, 1)
    assert 2 <= _levels(grid, x, steps) <= 4
    assert 2 <= _levels(ChannelScaledGrid(grid, factor), x, steps) <= 4
    assert _levels(unrounded(grid), x, steps) > 4
    assert _levels(ChannelScaledGrid(unrounded(grid), factor), x, steps) > 4
    if isinstance(grid, AffineGrid):
        assert 2 <= _levels(SplitGrid(2, grid, AffineGrid(2, torch.tensor(0.3), torch.tensor(1.0))), x, steps) <= 4
        assert _levels(SplitGrid(2, grid, unrounded(grid)), x, steps) > 4


def test_a_denoiser_made_elsewhere_keeps_it_too(tmp_path: Path, one_thread: None) -> None:
    """It stands at the bits that its makers say, and at no others."""
    from safetensors.torch import save_file

    model: QuantModel = small_model(BitWidth(4, 32), None)
    for layer in model.layers.values():
        layer.weight_grid = min_max_per_channel(layer.weight, 4)
    model.freeze()
    names = small_module()[0].state_dict()
    save_file(
        {name: model.module.state_dict()[name].contiguous() for name in names},
        tmp_path / "diffusion_pytorch_model.safetensors",
    )
    assert check_method("external", settings={"bits": "W4A32", "denoiser": str(tmp_path)}).passed == ALL
