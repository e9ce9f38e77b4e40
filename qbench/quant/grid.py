"""The uniform affine grid: integers, a scale and a zero point."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AffineGrid:
    """Maps x to ``clamp(round(x / scale) + zero_point, 0, 2**bits - 1)`` and back.

    Attributes:
        bits: 2 to 8.
        scale: float32; a scalar, or one for each output channel, shaped to broadcast against what is quantized.
        zero_point: the integer that stands for 0, as float32 in the shape of ``scale``.
    """

    bits: int
    scale: Tensor
    zero_point: Tensor

    @property
    def levels(self) -> int:
        """The number of grid points."""
        return int(2**self.bits)

    def quantize(self, x: Tensor) -> Tensor:
        """Return the integers that stand for ``x``, as floats in the shape of ``x``."""
        return (torch.round(x / self.scale) + self.zero_point).clamp_(0, self.levels - 1)

    def dequantize(self, integers: Tensor) -> Tensor:
        """Return the values that integers stand for."""
        return (integers - self.zero_point) * self.scale

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded to the grid."""
        return self.dequantize(self.quantize(x))

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again, as the end of a sentence, or None.

        Args:
            weight_shape: shape of the weight that it is for, [out channels, ...]; None for a layer's input.
        """
        zero_point = self.zero_point
        if not bool(self.scale.isfinite().all() and zero_point.isfinite().all()):
            return "that is not finite"
        if not bool((self.scale > 0).all()):
            return "with a scale that is not positive"
        if not bool(((zero_point >= 0) & (zero_point < self.levels) & (zero_point == zero_point.round())).all()):
            return f"with a zero point that is no integer from 0 to {self.levels - 1}"
        per_channel = None if weight_shape is None else (weight_shape[0], *(1,) * (len(weight_shape) - 1))
        if self.scale.shape != zero_point.shape or self.scale.shape not in ((), per_channel):
            return f"of shape {tuple(self.scale.shape)}, where a scalar or one value for each output channel is due"
        return None

    def to(self, device: torch.device) -> "AffineGrid":
        """Return the grid with its tensors on another device."""
        return AffineGrid(self.bits, self.scale.to(device), self.zero_point.to(device))


def grid_from_range(low: Tensor, high: Tensor, bits: int) -> AffineGrid:
    """Return the asymmetric grid that covers [low, high] and holds 0 exactly.

    A range is widened to contain 0, as integer kernels need it; a range of width 0 gets the scale 1, which keeps an
    all-zero channel exact.

    Args:
        low: smallest values, any shape.
        high: largest values, same shape.
        bits: 2 to 8.

    Raises:
        ValueError: a bound is not finite.
    """
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("a range to quantize is not finite: weights or activations hold NaN or infinity")
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero_point = torch.round(-low / scale).clamp(0, 2**bits - 1)
    return AffineGrid(bits, scale, zero_point)
