"""What the method ``replacing`` puts in the place of layers; apart, because it needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from qbench.quant import AffineGrid, QuantLayer, Replacement, Tap


class Table(Replacement):
    """Integers of a convolution or linear layer, a byte each, with the scale and zero point of each output channel."""

    def __init__(self, layer: QuantLayer, grid: AffineGrid, integers: Tensor) -> None:
        super().__init__()
        self.weight_bits = grid.bits
        self.operation = layer.operation
        self.register_buffer("integers", integers)
        self.register_buffer("scale", grid.scale)
        self.register_buffer("zero_point", grid.zero_point)

    def forward(self, x: Tensor, tap: Tap, bias: Tensor | None) -> Tensor:
        weight = AffineGrid(self.weight_bits, self.scale, self.zero_point).dequantize(self.integers.float())
        return self.operation(tap(x), weight, bias)

    def config(self) -> dict[str, Any]:
        return {"kind": "micro-table", "bits": self.weight_bits}

    def tensors(self) -> dict[str, Tensor]:
        return {"integers": self.integers, "scale": self.scale, "zero_point": self.zero_point}

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: QuantLayer) -> Self:
        if tensors["integers"].shape != layer.weight.shape:
            raise ValueError("its table is for another layer")
        return cls(layer, AffineGrid(config["bits"], tensors["scale"], tensors["zero_point"]), tensors["integers"])


class Stranger(Table):
    """Is offered by nobody."""


def table(layer: QuantLayer, bits: int, kind: type[Table] = Table) -> Table:
    """Return a table of a layer's weight on the grid of its channels' extremes."""
    from qbench.quant import min_max_per_channel

    grid = min_max_per_channel(layer.weight.detach(), bits)
    return kind(layer, grid, grid.quantize(layer.weight.detach()).to(torch.uint8))
