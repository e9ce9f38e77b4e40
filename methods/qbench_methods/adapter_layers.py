"""Layers whose weight is a tensor of torchao or of optimum-quanto, stored plainly.

Both libraries have tensor classes that take themselves apart into plain tensors (``__tensor_flatten__``). These go into
the packed checkpoint. To load them, a weight of zeros is quantized in the same way and its parts are exchanged: no
class is named in a file, and nothing of a file is run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION_BITS, LOW_BITS
from qbench.errors import StageError
from qbench.quant import QuantLayer, Replacement, Tap
from qbench.quant.packing import pack_bits, unpack_bits

INPUT_BITS = 8
"""That torchao's kernels round an input to."""
LINEAR = 2
"""Axes of a linear layer's weight."""
QUANTO_BITS = (2, 4, 8)
"""That quanto has integers of."""


class LibraryLayer(Replacement):
    """A layer that computes with a library's tensor.

    Attributes:
        kind: what it is offered as.

    Args:
        layer: that it takes the place of.
        weight: to be quantized, in the shape of the layer's.
        bits: of the weight.
        input_bits: that the library rounds the input to.
        group_size: input channels that share a scale, None for all of an output channel.

    Raises:
        StageError: the library cannot be imported.
        ValueError: the library offers no such layer.
    """

    kind: ClassVar[str]

    def __init__(
        self, layer: QuantLayer, weight: Tensor, bits: int, input_bits: int, group_size: int | None = None
    ) -> None:
        super().__init__()
        self.weight_bits, self.input_bits, self.group_size = bits, input_bits, group_size
        self._operation, self._shape = layer.operation, weight.shape
        self.register_buffer("weight", self.quantized(weight.detach()))
        self.weight: Tensor

    @abstractmethod
    def quantized(self, weight: Tensor) -> Tensor:
        """Return what the library makes of a weight."""

    def forward(self, x: Tensor, tap: Tap, bias: Tensor | None) -> Tensor:
        """Compute with the weight that the library's integers stand for."""
        output: Tensor = self._operation(tap(x), self.weight.dequantize().view(self._shape), bias)
        return output

    def config(self) -> dict[str, Any]:
        """Return how the library was called."""
        numbers = {"bits": self.weight_bits, "input_bits": self.input_bits, "group_size": self.group_size}
        return {"kind": self.kind, **numbers}

    def tensors(self) -> dict[str, Tensor]:
        """Return the parts of the library's tensor; integers of less than 8 bits packed, if the library does not."""
        return {name: self._packed(part) for name, part in _parts(self.weight).items()}

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: QuantLayer) -> Self:
        """Return the layer with these parts in place of those that zeros would have."""
        bits, input_bits, group_size = config["bits"], config["input_bits"], config["group_size"]
        if bits not in LOW_BITS or input_bits not in (INPUT_BITS, FULL_PRECISION_BITS):
            raise ValueError(f"weights of {bits} bits with inputs of {input_bits} are not offered")
        found = cls(layer, torch.zeros_like(layer.weight), bits, input_bits, group_size)
        expected = _parts(found.weight)
        if expected.keys() != tensors.keys():
            raise ValueError(f"its tensors are {', '.join(sorted(tensors))}, not {', '.join(sorted(expected))}")
        parts = {name: found._unpacked(tensors[name], expected[name], name) for name in expected}
        found.weight = _with_parts(found.weight, parts)
        return found

    def _packed(self, part: Tensor) -> Tensor:
        if part.dtype != torch.int8 or self.weight_bits == INPUT_BITS or part.numel() != self._shape.numel():
            return part
        integers = (part.cpu() + 2 ** (self.weight_bits - 1)).to(torch.uint8)
        return torch.from_numpy(pack_bits(integers.numpy(), self.weight_bits))

    def _unpacked(self, part: Tensor, expected: Tensor, name: str) -> Tensor:
        packed = self._packed(expected)
        if (part.dtype, part.shape) != (packed.dtype, packed.shape):
            raise ValueError(f"its {name} is {part.dtype} {list(part.shape)}, not {packed.dtype} {list(packed.shape)}")
        if packed is expected:
            return part
        integers = unpack_bits(part.cpu().numpy(), self.weight_bits, expected.numel()).astype(np.int16)
        shifted = torch.from_numpy((integers - 2 ** (self.weight_bits - 1)).astype(np.int8))
        return shifted.view(expected.shape)


class TorchAOLayer(LibraryLayer):
    """A linear layer of torchao: symmetric integers of 2 to 8 bits, inputs of 8 bits from each token's own range."""

    kind = "torchao"

    def quantized(self, weight: Tensor) -> Tensor:
        """Return what ``quantize_`` makes of a weight."""
        quantization = _library("torchao.quantization", "torchao")
        if weight.dim() != LINEAR or weight.shape[1] % (self.group_size or 1):
            raise ValueError(f"a weight of shape {list(weight.shape)} cannot have groups of {self.group_size}")
        rounds_input, group_size = self.input_bits < FULL_PRECISION_BITS, self.group_size
        channel = quantization.PerAxis(0) if group_size is None else quantization.PerGroup(group_size)
        dtype = getattr(torch, f"int{self.weight_bits}")
        if self.weight_bits == INPUT_BITS and group_size is None:
            whole = "Int8DynamicActivationInt8WeightConfig" if rounds_input else "Int8WeightOnlyConfig"
            config = getattr(quantization, whole)(set_inductor_config=False)  # a setting of the process otherwise
        elif rounds_input:
            config = quantization.Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=channel)
        else:
            config = quantization.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=channel)
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")  # draws no random numbers
        linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
        quantization.quantize_(linear, config)
        return linear.weight.data

    def forward(self, x: Tensor, tap: Tap, bias: Tensor | None) -> Tensor:
        """Compute as torchao does, which may round the input."""
        output: Tensor = self._operation(tap(x), self.weight, bias)
        return output


class QuantoLayer(LibraryLayer):
    """A linear layer or convolution of optimum-quanto: weights of 2, 4 or 8 bits, in groups of the library's choice."""

    kind = "quanto"

    def quantized(self, weight: Tensor) -> Tensor:
        """Return what a frozen module of quanto holds."""
        quanto = _library("optimum.quanto", "quanto")
        if self.weight_bits not in QUANTO_BITS or self.input_bits != FULL_PRECISION_BITS or self.group_size:
            raise ValueError(f"weights of {self.weight_bits} bits with inputs of {self.input_bits} are not offered")
        linear = nn.Linear(weight[0].numel(), weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight.flatten(1).clone(), requires_grad=False)
        module = quanto.QLinear.from_module(linear, weights=getattr(quanto, f"qint{self.weight_bits}"))
        module.freeze()
        frozen: Tensor = module.weight.data
        return frozen


def _library(module: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except (ImportError, OSError) as error:  # OSError: a native library of theirs does not load
        raise StageError(f"{module} cannot be imported ({error}): pip install 'qbench[{extra}]'") from error


def _parts(tensor: Tensor) -> dict[str, Tensor]:
    """Return the plain tensors within a tensor, by their names on the way down."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return {"": tensor}
    names, _ = tensor.__tensor_flatten__()
    inner = {name: _parts(getattr(tensor, name)) for name in names}
    return {f"{name}.{rest}".rstrip("."): part for name in names for rest, part in inner[name].items()}


def _with_parts(tensor: Any, parts: Mapping[str, Tensor], name: str = "") -> Any:
    """Return a tensor of the same classes with other plain tensors within."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return parts[name]
    names, context = tensor.__tensor_flatten__()
    inner = {each: _with_parts(getattr(tensor, each), parts, f"{name}.{each}".lstrip(".")) for each in names}
    return type(tensor).__tensor_unflatten__(inner, context, tensor.shape, tensor.stride())
