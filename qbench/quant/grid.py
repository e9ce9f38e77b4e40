"""Uniform grids: integers, a scale and a zero point."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from qbench.bits import LOW_BITS, SOFTMAX_BITS


class Grid(Protocol):
    """What a weight or an activation is rounded to."""

    @property
    def bits(self) -> int:
        """Bits of an integer on the grid."""
        ...

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return ``x`` [batch, ...] rounded; ``steps`` [batch] are the sampling steps that its rows come from."""
        ...

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again, as the end of a sentence, or None.

        Args:
            weight_shape: shape of the weight that it is for, [out channels, ...]; None for an activation.
        """
        ...

    def config(self) -> dict[str, Any]:
        """Return, as plain data with the key ``kind``, what the tensors do not say."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by name."""
        ...

    def to(self, device: torch.device) -> "Grid":
        """Return the grid with its tensors on another device."""
        ...


class WeightGrid(Grid, Protocol):
    """A grid whose integers can be stored in place of a weight."""

    def dense(self, shape: Sequence[int]) -> "AffineGrid":
        """Return scale and zero point in a shape that broadcasts against a weight of a shape."""
        ...

    def quantize(self, x: Tensor) -> Tensor:
        """Return the integers that stand for ``x``, as floats in the shape of ``x``."""
        ...

    def dequantize(self, integers: Tensor) -> Tensor:
        """Return the values that integers stand for."""
        ...


class _RoundStraightThrough(torch.autograd.Function):
    """Rounds to scale * integers from low to high, with the gradients of LSQ (Esser et al. 2020, arXiv 1902.08153).

    Rounding hands the gradient on as if it were not there (the straight-through estimator, Bengio et al. 2013, arXiv
    1308.3432). The two end points belong to the inside, which torch's own clamp sees differently on its own: it halves
    or drops their gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Any, high: Any) -> Tensor:
        scaled = x / scale
        rounded = scaled.round()
        clamped = rounded.clamp(low, high)
        inside = rounded == clamped
        ctx.save_for_backward(inside, clamped - scaled * inside)
        ctx.scale_shape = scale.shape
        return clamped * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        inside, slope = ctx.saved_tensors
        return gradients[0] * inside, (gradients[0] * slope).sum_to_size(ctx.scale_shape), None, None


@dataclass(frozen=True)
class AffineGrid:
    """Maps x to ``clamp(round(x / scale) + zero_point, 0, 2**bits - 1)`` and back.

    A symmetric grid is one whose zero point is ``2**(bits - 1)``. Gradients pass straight through the rounding: they
    reach ``x`` where it is not clamped, and the scale, if it asks for one, everywhere.

    Attributes:
        bits: 2 to 8, or 16.
        scale: float32; a scalar, or one for each output channel, shaped to broadcast against what is quantized.
        zero_point: the integer that stands for 0, as float32 in the shape of ``scale``.
    """

    bits: int
    scale: Tensor
    zero_point: Tensor

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def levels(self) -> int:
        """The number of grid points."""
        return int(2**self.bits)

    @cached_property
    def _bounds(self) -> tuple[Any, Any]:
        """The least and the greatest value of round(x / scale), as numbers where there is one zero point for all."""
        if self.zero_point.dim() == 0 and self.zero_point.device.type == "cpu":  # elsewhere it would be waited for
            zero_point = float(self.zero_point)
            return -zero_point, self.levels - 1 - zero_point
        return self._bound_tensors()

    def _bound_tensors(self) -> tuple[Tensor, Tensor]:
        return -self.zero_point, self.levels - 1 - self.zero_point

    def quantize(self, x: Tensor) -> Tensor:
        """Return the integers that stand for ``x``, as floats in the shape of ``x``."""
        return (torch.round(x / self.scale) + self.zero_point).clamp_(0, self.levels - 1)

    def dequantize(self, integers: Tensor) -> Tensor:
        """Return the values that integers stand for."""
        return (integers - self.zero_point) * self.scale

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return ``x`` rounded to the grid."""
        return self._rounded(x, *self._bounds)

    def once(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded to a grid that was made for it alone: nothing is kept, which torch.compile follows."""
        return self._rounded(x, *self._bound_tensors())

    def _rounded(self, x: Tensor, low: Any, high: Any) -> Tensor:
        if torch.is_grad_enabled() and (x.requires_grad or self.scale.requires_grad):
            rounded: Tensor = _RoundStraightThrough.apply(x, self.scale, low, high)
            return rounded
        return x.div(self.scale).round_().clamp_(low, high).mul_(self.scale)

    def dense(self, shape: Sequence[int]) -> "AffineGrid":
        """Return itself: a scalar or a value for each output channel broadcasts already."""
        return self

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again."""
        per_channel = None if weight_shape is None else (weight_shape[0], *(1,) * (len(weight_shape) - 1))
        if weight_shape is not None and self.bits not in LOW_BITS:
            return f"of {self.bits} bits, where a weight has {LOW_BITS[-1]} at most"
        if self.scale.shape != self.zero_point.shape or self.scale.shape not in ((), per_channel):
            return f"of shape {tuple(self.scale.shape)}, where a scalar or one value for each output channel is due"
        return fault_of(self.bits, self.scale, self.zero_point)

    def config(self) -> dict[str, Any]:
        """Return its bits."""
        return {"kind": "affine", "bits": self.bits}

    def tensors(self) -> dict[str, Tensor]:
        """Return scale and zero point."""
        return {"scale": self.scale, "zero_point": self.zero_point}

    def to(self, device: torch.device) -> "AffineGrid":
        """Return the grid with its tensors on another device."""
        return AffineGrid(self.bits, self.scale.to(device), self.zero_point.to(device))


def grid_from_range(low: Tensor, high: Tensor, bits: int, symmetric: bool = False) -> AffineGrid:
    """Return the grid that covers [low, high] and holds 0 exactly.

    A range is widened to contain 0, as integer kernels need it; a range of width 0 gets the scale 1, which keeps an
    all-zero channel exact. A symmetric grid stands for the integers -2**(bits - 1) to 2**(bits - 1) - 1 and has its
    zero point in the middle.

    Args:
        low: smallest values, any shape.
        high: largest values, same shape.
        bits: 2 to 8, or 16.
        symmetric: whether the grid is symmetric about 0.

    Raises:
        ValueError: a bound is not finite, or their difference is not.
    """
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("a range to quantize is not finite: weights or activations hold NaN or infinity")
    grid = affine_grid(low, high, bits, symmetric)
    if not torch.isfinite(grid.scale).all():
        raise ValueError("a range to quantize is wider than float32 can tell")
    return grid


def affine_grid(low: Tensor, high: Tensor, bits: int, symmetric: bool = False) -> AffineGrid:
    """Return what ``grid_from_range`` returns, without looking whether the bounds are finite."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = torch.maximum(-low, high) / (2 ** (bits - 1) - 1)
        zero_point = torch.full_like(scale, 2 ** (bits - 1))
        return AffineGrid(bits, _positive(scale), zero_point)
    scale = _positive((high - low) / (2**bits - 1))
    return AffineGrid(bits, scale, torch.round(-low / scale).clamp(0, 2**bits - 1))


def check_bits(bits: Any) -> None:
    """Refuse bits that no grid is offered with.

    Raises:
        ValueError: they are none of 2 to 8, or 16.
    """
    if type(bits) is not int or bits not in SOFTMAX_BITS:
        raise ValueError(f"a grid of {bits!r} bits is not offered: use one of {', '.join(map(str, SOFTMAX_BITS))}")


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def fault_of(bits: int, scale: Tensor, zero_point: Tensor) -> str | None:
    """Return what is wrong with the values of scale and zero point, as the end of a sentence, or None."""
    if not bool(scale.isfinite().all() and zero_point.isfinite().all()):
        return "that is not finite"
    if not bool((scale > 0).all()):
        return "with a scale that is not positive"
    if not bool(((zero_point >= 0) & (zero_point < 2**bits) & (zero_point == zero_point.round())).all()):
        return f"with a zero point that is no integer from 0 to {2**bits - 1}"
    return None
