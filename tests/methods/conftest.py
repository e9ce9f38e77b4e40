"""A small UNet and a way to run a whole method on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.unet_structure import unet_structure
from qbench.method import CalibrationData, Method
from qbench.plan import make_plan
from qbench.plugins import Entry
from qbench.quant import QuantModel
from qbench.settings import merged, validate
from qbench.suite import load_suite

QUICK: dict[str, Any] = {
    "rounding": {"iterations": 2, "batch_size": 8, "learning_rate": 0.3},
    "step_sizes": {"iterations": 2, "batch_size": 8, "learning_rate": 0.01},
}
"""Recipes that take no time, for those methods that have them."""


@pytest.fixture(scope="session")
def small_model() -> Callable[..., QuantModel]:
    """Return a function that makes a UNet with attention and two split shortcuts, always with the same weights.

    ``change`` is called with the UNet before it is wrapped.
    """

    def make(
        bits: str = "W4A8", boundary_bits: int | None = None, change: Callable[[nn.Module], object] = id
    ) -> QuantModel:
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=4,
            in_channels=2,
            out_channels=2,
            layers_per_block=1,
            block_out_channels=(6,),
            norm_num_groups=2,
            attention_head_dim=3,
            down_block_types=("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",),
        )
        change(unet)
        unet.eval().requires_grad_(False)
        return QuantModel(unet, unet_structure(unet), BitWidth.parse(bits), boundary_bits)

    return make


@pytest.fixture(scope="session")
def small_data() -> Callable[..., CalibrationData]:
    """Return a function that makes calibration data for it; keywords replace what they are otherwise."""

    def make(count: int = 70, **changes: Any) -> CalibrationData:
        x, steps = torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 4
        values = {"batch_size": 35, "report": lambda done: None} | changes
        return CalibrationData(x, 999 - 300 * steps, steps, **values)

    return make


@pytest.fixture(scope="session")
def create() -> Callable[..., Any]:
    """Return a function that makes a method; keywords are its settings, recipes are quick ones by default."""

    def make(method: type[Method], **settings: Any) -> Method:
        quick = {name: value for name, value in QUICK.items() if name in method.settings_class.model_fields}
        plain = merged(merged(method.settings_class().model_dump(mode="json"), quick), settings)
        given = validate(method.settings_class, plain, str)
        return method(Entry(method.__name__.lower(), "qbench", "0", "here:there"), given)

    return make


@dataclass(frozen=True)
class Outcome:
    """What a method made of the small UNet; several tests look at the same one, so none may change it.

    Attributes:
        model: with its grids.
        start: makes the model that the method was given.
        shares: of the work on weights and on activations, as they were reported.
    """

    model: QuantModel
    start: Callable[[], QuantModel]
    shares: Mapping[str, list[float]] = field(default_factory=lambda: {"weights": [], "activations": []})

    def integers(self) -> dict[str, Tensor]:
        """The integers of every weight that has a grid."""
        layers = {name: layer for name, layer in self.model.layers.items() if layer.weight_grid is not None}
        return {name: layer.weight_grid.quantize(layer.rounded) for name, layer in layers.items()}

    def with_weights_only(self) -> QuantModel:
        """Another model, with the same weights and no grids of activations yet."""
        model = self.start()
        for name, integers in self.integers().items():
            model.layers[name].adopt(self.model.layers[name].weight_grid, integers)
        return model


@pytest.fixture(scope="session")
def outcomes() -> dict[Any, Outcome]:
    """Those that there are."""
    return {}


@pytest.fixture
def end_to_end(
    small_model: Callable[..., QuantModel],
    small_data: Callable[..., CalibrationData],
    outcomes: dict[Any, Outcome],
    one_thread: None,
) -> Callable[..., Outcome]:
    """Return a function that runs a method at some bits, as its stages do, and checks what goes for all methods."""

    def run(method: Method, bits: str = "W3A8S16", boundary_bits: int | None = 8) -> Outcome:
        key = (type(method), method.settings, bits, boundary_bits)
        if key not in outcomes:
            assert method.refusal(BitWidth.parse(bits)) is None
            start = partial(small_model, bits, boundary_bits)
            outcomes[key] = Outcome(start(), start)
            _quantize(method, outcomes[key], small_data)
            _check(outcomes[key], small_data())
        return outcomes[key]

    return run


def _quantize(method: Method, outcome: Outcome, small_data: Callable[..., CalibrationData]) -> None:
    model = outcome.model
    for target, quantize in (("weights", method.quantize_weights), ("activations", method.quantize_activations)):
        data = small_data(report=outcome.shares[target].append)
        quantize(model, None if method.calibration(target) is None else data, model.bits)


def _check(outcome: Outcome, data: CalibrationData) -> None:
    model, untouched = outcome.model, outcome.start()
    for name, layer in model.layers.items():
        assert (layer.weight_grid is None) == (layer.bits.weights == 32)
        assert torch.equal(layer.weight, untouched.layers[name].weight)
        assert layer.learned is None
        if layer.weight_grid is None:
            assert layer.rounded is layer.weight
    for name, integers in outcome.integers().items():
        layer, grid = model.layers[name], model.layers[name].weight_grid
        assert grid.bits == layer.bits.weights
        assert grid.fault(layer.weight.shape) is None
        assert torch.equal(integers, integers.round())
        assert 0 <= float(integers.min()) <= float(integers.max()) <= 2**grid.bits - 1
        assert torch.equal(grid.dequantize(integers), layer.rounded)
    for name, tap in model.taps.items():
        assert tap.grid is None or (tap.grid.bits == tap.bits < 32 and tap.grid.fault(None) is None), name
    with torch.no_grad():
        assert model(data.x, data.timesteps, steps=data.step_indices).isfinite().all()


@pytest.fixture
def weights_digests(micro_suite: Callable[..., Path]) -> Callable[[str, list[str]], list[str]]:
    """Return a function that plans a method at some bits and returns the digest of each cell's stage ``weights``."""

    def plan(method: str, bits: list[str]) -> list[str]:
        cells = make_plan(load_suite(micro_suite(methods=[method], bits=bits))).cells
        own = [[each.digest for each in cell.own_stages.values() if each.kind == "weights"] for cell in cells]
        return [digests[0] for digests in own if digests]

    return plan
