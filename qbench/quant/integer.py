"""Layers that really compute in 8-bit integers, on CPUs, by the kernels of oneDNN that torch comes with.

They are the kernels that a model exported and quantized by PT2E is lowered to (torch's X86InductorQuantizer). Called
directly, they take the grids that a method chose, where PT2E would choose others by observers of its own. What is
computed is what simulated quantization computes, but for the order of sums in float32, and for one thing: without VNNI
instructions a CPU adds products of u8 and s8 in pairs in 16 bits, which saturate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.quant.census import Count
from qbench.quant.grid import AffineGrid, Grid
from qbench.quant.grid_kinds import SplitGrid
from qbench.quant.layers import Geometry, LayerBits, QuantLayer
from qbench.quant.model import QuantModel

WIDTH = 8
"""Bits that both operands of the kernels have at most."""
_S8 = (-128, 127)
_MAGIC = 1.5 * 2**23
"""Float32 numbers around it have no digits behind the point, and their last byte is that of an integer."""
_FLOAT_OUTPUT: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
"""What the kernels are told of their output: its scale, its zero point, its type, and that nothing follows."""
_LINEAR = 2
"""Axes of a linear layer's weight."""


@dataclass(frozen=True)
class _Part:
    """Some input channels of a layer, which share a grid.

    Attributes:
        channels: of the input.
        grid: of the input, one scale.
        weight: s8 integers as the kernel wants them, those of the extra outputs among them.
        scale: of each output channel, float32.
        zero_point: of each output channel, all 0.
        offset: what is added to each output for each unit of the extra output, [groups, outputs of a group], with as
            many axes behind them as an output has; None where there is no extra output.
    """

    channels: slice
    grid: AffineGrid
    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    offset: Tensor | None


class IntegerLayer(nn.Module):
    """A quantized layer whose multiplications are those of 8-bit integers.

    The kernels take signed weights whose zero point is 0. A grid's integers q with the zero point z are 0 to 255, so
    ``q - z`` may not fit. Where it does not, they are given ``q - o`` with an o that makes it fit, and
    ``(o - z) * sum(x)`` is added, for which one more output with a weight of ones gives the sum of the inputs that the
    window covers.

    Args:
        layer: frozen or not; ``refusal`` must have nothing against it.
        shape: of the input that it is made for; it takes others too, and may be slower then.
    """

    def __init__(self, layer: QuantLayer, shape: Sequence[int]) -> None:
        super().__init__()
        self._geometry = layer.geometry
        self._bias = layer.bias
        self._parts = [_part(layer, *each, shape) for each in _divided(layer)]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x``, in the original's shapes."""
        first, *others = self._parts
        y = self._multiplied(x, first, self._bias)
        for part in others:
            y = y + self._multiplied(x, part, None)
        return y

    def _multiplied(self, x: Tensor, part: _Part, bias: Tensor | None) -> Tensor:
        integers = to_integers(x if len(self._parts) == 1 else x[:, part.channels], part.grid)
        if bias is not None and part.offset is not None:
            bias = functional.pad(bias.view(len(part.offset), -1), (0, 1)).flatten()
        given = (integers, float(part.grid.scale), int(part.grid.zero_point), part.weight, part.scale, part.zero_point)
        if self._geometry is None:
            y: Tensor = torch.ops.onednn.qlinear_pointwise(*given, bias, *_FLOAT_OUTPUT)
        else:
            stride, padding, dilation, groups = self._geometry
            y = torch.ops.onednn.qconv2d_pointwise(*given, bias, stride, padding, dilation, groups, *_FLOAT_OUTPUT)
        if part.offset is None:
            return y
        axis = y.dim() - 1 if self._geometry is None else 1
        y = y.unflatten(axis, (len(part.offset), -1))  # type: ignore[no-untyped-call]
        last = y.shape[axis + 1] - 1
        outputs, total = y.narrow(axis + 1, 0, last), y.narrow(axis + 1, last, 1)
        return torch.addcmul(outputs, total, part.offset).flatten(axis, axis + 1)


def to_integers(x: Tensor, grid: AffineGrid) -> Tensor:
    """Return the u8 integers that stand for ``x`` on a grid of one scale, those of ``grid.quantize`` to the last.

    Rounding is done by adding a number so large that no digits are left behind the point, which takes half the time.
    """
    scale, zero_point = float(grid.scale), int(grid.zero_point)
    shifted = x.div(scale).clamp_(-zero_point, grid.levels - 1 - zero_point).add_(_MAGIC)
    return shifted.view(torch.int32).to(torch.uint8).add_(zero_point)  # what is below 0 wraps around, and back


def refusal(layer: QuantLayer) -> str | None:
    """Return why a layer has to stay simulated, as the end of a sentence, or None."""
    weight, given = layer.weight_grid, layer.input_grid
    if weight is None or given is None:
        return "is not quantized"
    for grid in (weight, given):
        if not isinstance(grid, AffineGrid | SplitGrid) or grid.bits > WIDTH:
            return f"has a {type(grid).__name__} of {grid.bits} bits"
    halves = [given.first, given.second] if isinstance(given, SplitGrid) else [given]
    if any(half.scale.numel() != 1 for half in halves if isinstance(half, AffineGrid)):
        return "has an input with several scales"
    is_linear = layer.weight.dim() == _LINEAR
    if layer.geometry is None and not is_linear:
        return "is neither linear nor a convolution of images"
    if isinstance(weight, SplitGrid) or isinstance(given, SplitGrid):
        if is_linear or (layer.geometry is not None and layer.geometry.groups != 1):
            return "is split, and not a convolution without groups"
        if isinstance(weight, SplitGrid) and isinstance(given, SplitGrid) and weight.index != given.index:
            return "is split in two places"
    if layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu":
        return f"is {layer.weight.dtype} on {layer.weight.device.type}"
    return None


class IntegerModel:
    """The layers of a model that can compute in integers, ready to take the places of those that simulate it.

    Args:
        model: quantized, on a CPU.
        shapes: of each layer's input, by name; a layer without one was not called and stays as it is.

    Attributes:
        layers: those that compute in integers, by name.
        simulated: why the others do not, by name.
    """

    def __init__(self, model: QuantModel, shapes: Mapping[str, Sequence[int]]) -> None:
        self.layers: dict[str, IntegerLayer] = {}
        self.simulated: dict[str, str] = {}
        for name, layer in model.layers.items():
            reason = refusal(layer) if name in shapes else "is not called"
            if reason is None:
                self.layers[name] = IntegerLayer(layer, shapes[name])
            else:
                self.simulated[name] = reason
        integer = {id(model.layers[name]): layer for name, layer in self.layers.items()}
        self._places = [
            (parent, name, child, integer[id(child)])
            for parent in model.module.modules()
            for name, child in parent._modules.items()  # one layer may be held in two places
            if id(child) in integer
        ]

    def share(self, census: Iterable[Count]) -> float:
        """Return the share of all multiply-accumulates that are really done in integers.

        Args:
            census: of the denoiser.
        """
        counts = list(census)
        return sum(each.macs for each in counts if each.name in self.layers) / sum(each.macs for each in counts)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model compute in integers while the context lasts."""
        for parent, name, _, layer in self._places:
            parent._modules[name] = layer
        try:
            yield
        finally:
            for parent, name, simulated, _ in self._places:
                parent._modules[name] = simulated


@cache
def unavailable(device: torch.device) -> str | None:
    """Return why there are no such kernels on a device, as a sentence without its end; None if there are.

    They are no public functions of torch, so a small layer of each kind is computed and compared with simulation.
    """
    if device.type != "cpu":
        return f"kernels for integers are used on CPUs only, not on {device.type}"
    convolution = nn.Conv2d(3, 2, 3, padding=1), (1, 3, 5, 5)
    linear = nn.Linear(3, 2), (5, 3)
    for original, shape in (convolution, linear):
        layer = QuantLayer(original, LayerBits(WIDTH, WIDTH))
        layer.weight.data = torch.linspace(-1, 1, layer.weight.numel()).view(layer.weight.shape)
        layer.weight_grid = AffineGrid(WIDTH, torch.tensor(2**-7), torch.tensor(90.0))
        layer.input_grid = AffineGrid(4, torch.tensor(0.25), torch.tensor(6.0))  # too small to saturate
        x = torch.linspace(-1, 2, prod(shape)).view(shape)
        try:
            with torch.inference_mode():
                found, expected = IntegerLayer(layer, shape)(x), layer(x)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
            return f"torch {torch.__version__} has no such kernel of oneDNN ({' '.join(str(error).split())[:120]})"
        if not torch.allclose(found, expected, atol=1e-5):
            return f"the kernel of torch {torch.__version__} computes something else here"
    return None


def _divided(layer: QuantLayer) -> list[tuple[slice, AffineGrid, AffineGrid]]:
    """Return the parts of a layer's input with the grids of their weights and of themselves."""
    weight, given = layer.weight_grid, layer.input_grid
    index = next((grid.index for grid in (weight, given) if isinstance(grid, SplitGrid)), None)
    if index is None:
        return [(slice(None), _half(weight, "first"), _half(given, "first"))]
    return [
        (slice(0, index), _half(weight, "first"), _half(given, "first")),
        (slice(index, None), _half(weight, "second"), _half(given, "second")),
    ]


def _half(grid: Grid | None, name: str) -> AffineGrid:
    """Return a half of a grid that is split, or the grid itself."""
    half = getattr(grid, name) if isinstance(grid, SplitGrid) else grid
    assert isinstance(half, AffineGrid)
    return half


def _part(layer: QuantLayer, channels: slice, weight: AffineGrid, given: AffineGrid, shape: Sequence[int]) -> _Part:
    outputs, *window = layer.weight.shape
    groups = 1 if layer.geometry is None else layer.geometry.groups
    rounded = layer.rounded.detach()[:, channels]
    integers = weight.quantize(rounded).flatten(1)
    scale = weight.scale.expand(outputs, *(1,) * len(window)).flatten()
    wanted = weight.zero_point.expand(outputs, *(1,) * len(window)).flatten()
    taken = torch.minimum(torch.maximum(wanted, integers.amax(1) - _S8[1]), integers.amin(1) - _S8[0])
    signed = (integers - taken[:, None]).view(rounded.shape)
    offset = None
    if bool((taken != wanted).any()):
        offset = (scale * (taken - wanted)).view(groups, -1, *(1,) * (len(window) - 1))
        signed = _with_one_more(signed, groups, 1.0)
        scale = _with_one_more(scale, groups, 1.0)
    size = [shape[0], rounded.shape[1] * groups, *shape[2:]] if layer.geometry is not None else list(shape)
    packed = _packed(signed.to(torch.int8), scale, given, layer.geometry, size)
    return _Part(channels, given, packed, scale, torch.zeros(len(scale), dtype=torch.int32), offset)


def _with_one_more(values: Tensor, groups: int, last: float) -> Tensor:
    """Return values [outputs, ...] with one more output in each group."""
    parts = values.view(groups, -1, *values.shape[1:])
    return torch.cat([parts, torch.full_like(parts[:, :1], last)], dim=1).flatten(0, 1)


def _packed(
    weight: Tensor, scale: Tensor, given: AffineGrid, geometry: Geometry | None, shape: Sequence[int]
) -> Tensor:
    if geometry is None:
        packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, shape)
        return packed
    stride, padding, dilation, groups = geometry
    of_input = (float(given.scale), int(given.zero_point))
    packed = torch.ops.onednn.qconv_prepack(weight, scale, *of_input, stride, padding, dilation, groups, shape)
    return packed
