"""Every method that comes with qbench keeps the contract that it asks of others."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qbench.bits import BitWidth
from qbench.plugins import METHODS
from qbench.quant import QuantModel, min_max_per_channel
from qbench.testing import check_method
from qbench.testing.method_clauses import CLAUSES
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
