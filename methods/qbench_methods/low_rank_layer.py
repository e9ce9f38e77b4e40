"""A layer of SVDQuant: a branch of low rank beside a rounded residual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Buffer, functional

from qbench.quant import AffineGrid, QuantLayer, Replacement, Tap, WeightRanges, min_max_per_channel, mse_per_channel
from qbench.quant.packing import pack_bits, unpack_bits

LINEAR = 2
"""Axes of a linear layer's weight."""
TYPES = {
    "packed": torch.uint8,
    "scale": torch.float32,
    "zero_point": torch.int16,
    "up": torch.float16,
    "down": torch.float16,
    "factor": torch.float32,
}


@dataclass(frozen=True)
class Split:
    """A weight, smoothed, as ``up @ down`` and what is left of it on a grid.

    Attributes:
        up: float16 [out channels, rank].
        down: float16 [rank, entries of an output channel].
        grid: of the residual, one scale for each output channel.
        integers: of the residual, as floats in the shape of the weight.
        error: squared, of all entries.
    """

    up: Tensor
    down: Tensor
    grid: AffineGrid
    integers: Tensor
    error: float


def split(weight: Tensor, rank: int, iterations: int, bits: int, ranges: WeightRanges) -> Split:
    """Return the branch that leaves a residual which is rounded with little error.

    The first branch is the weight's own best approximation of that rank. Each further one is that of the weight
    without the rounded residual of the one before, as in the authors' code, as long as the error falls.

    Source: SVDQuant (arXiv 2411.05007), section 4.2, equations 5 and 6.

    Args:
        weight: [out channels, ...].
        rank: of the branch, at most the smaller side of the weight.
        iterations: branches to try at most.
        bits: of the residual.
        ranges: how its grid is chosen.
    """
    exact = weight.detach().float()
    best: Split | None = None
    rounded = torch.zeros_like(exact)
    for _ in range(iterations):
        up, down = _truncated((exact - rounded).flatten(1), rank)
        residual = exact - (up.float() @ down.float()).view_as(exact)
        if ranges.estimator == "mse":
            grid = mse_per_channel(residual, bits, ranges.symmetric, ranges.candidates)
        else:
            grid = min_max_per_channel(residual, bits, ranges.symmetric)
        integers = grid.quantize(residual)
        rounded = grid.dequantize(integers)
        error = float((residual - rounded).square().sum(dtype=torch.float32))
        if best is not None and not error < best.error:
            break
        best = Split(up, down, grid, integers, error)
    assert best is not None
    return best


def _truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    # Not every accelerator has a singular value decomposition, and the host's is the same everywhere.
    left, sizes, right = torch.linalg.svd(matrix.cpu(), full_matrices=False)
    root = sizes[:rank].sqrt()
    up, down = left[:, :rank] * root, root[:, None] * right[:rank]
    # Contiguous, as what is loaded from a file: another layout in memory gives other last digits.
    up, down = (each.to(matrix.device, torch.float16).contiguous() for each in (up, down))
    return up, down


class LowRankLayer(Replacement):
    """Computes ``up (down x / s) + round(residual) round(x / s)``.

    Args:
        layer: that it takes the place of; without groups.
        parts: of its weight, which was multiplied by the factors before.
        factor: s, for each input channel as ``ChannelScaledGrid`` has it; ones where nothing is smoothed.
    """

    def __init__(self, layer: QuantLayer, parts: Split, factor: Tensor) -> None:
        super().__init__()
        self.weight_bits = parts.grid.bits
        self._operation = layer.operation
        self.up, self.down, self.factor = Buffer(parts.up), Buffer(parts.down), Buffer(factor)
        self.scale, self.zero_point = Buffer(parts.grid.scale), Buffer(parts.grid.zero_point)
        self.residual = Buffer(parts.grid.dequantize(parts.integers))

    def forward(self, x: Tensor, tap: Tap, bias: Tensor | None) -> Tensor:
        """Return the sum of both branches; the one of low rank takes the input as it is."""
        x = x / self.factor
        hidden = self._operation(x, self.down.to(x.dtype).view(-1, *self.residual.shape[1:]), None)
        output: Tensor = self._operation(tap(x), self.residual, bias) + self._raised(hidden)
        return output

    def _raised(self, hidden: Tensor) -> Tensor:
        up = self.up.to(hidden.dtype)
        if self.residual.dim() == LINEAR:
            return functional.linear(hidden, up)
        return (up @ hidden.flatten(2)).view(len(hidden), len(up), *hidden.shape[2:])

    def config(self) -> dict[str, Any]:
        """Return the residual's bits."""
        return {"kind": "low-rank", "bits": self.weight_bits}

    def tensors(self) -> dict[str, Tensor]:
        """Return the residual's integers, packed, with its grid, the branch in half precision, and the factors."""
        integers = AffineGrid(self.weight_bits, self.scale, self.zero_point).quantize(self.residual)
        packed = pack_bits(integers.to("cpu", torch.uint8).numpy(), self.weight_bits)
        return {
            "packed": torch.from_numpy(packed),
            "scale": self.scale,
            "zero_point": self.zero_point.to(torch.int16),
            "up": self.up,
            "down": self.down,
            "factor": self.factor,
        }

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: QuantLayer) -> Self:
        """Return the layer of these parts."""
        shape, bits = layer.weight.shape, config["bits"]
        found = {name: tensors[name].to(layer.weight.device) for name in TYPES}
        wrong = [name for name, dtype in TYPES.items() if found[name].dtype != dtype]
        if wrong or tensors.keys() != TYPES.keys():
            raise ValueError(f"it has other tensors than {', '.join(TYPES)}, or of other types")
        if found["up"].dim() != LINEAR or not bool((found["factor"] > 0).all()):
            raise ValueError("its branch is no matrix, or it has a factor that is not positive")
        if not all(bool(found[name].isfinite().all()) for name in ("up", "down", "factor")):
            raise ValueError("its branch or its factors are not finite")
        rank = found["up"].shape[1]
        channels = (shape[1], *(1,) * (len(shape) - LINEAR))
        expected = ((shape[0], rank), (rank, shape[1:].numel()), channels)
        if tuple(tuple(found[name].shape) for name in ("up", "down", "factor")) != expected or rank < 1:
            raise ValueError("its branch is that of another layer")
        grid = AffineGrid(bits, found["scale"], found["zero_point"].float())
        if fault := grid.fault(shape):
            raise ValueError(f"it has a grid {fault}")
        if found["packed"].shape != (math.ceil(shape.numel() * bits / 8),):
            raise ValueError(f"it holds no integers of {bits} bits for this layer")
        integers = torch.from_numpy(unpack_bits(found["packed"].cpu().numpy(), bits, shape.numel())).view(shape)
        given = integers.to(layer.weight.device, torch.float32)
        return cls(layer, Split(found["up"], found["down"], grid, given, 0.0), found["factor"])
