"""Uniform grids: integers, a scale and a zero point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from qbench.bits import LOW_BITS, SOFTMAX_BITS

MOST_AXES = 3
"""Trailing axes of what a convolution of images sees."""


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
        _check_bits(self.bits)

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
        return -self.zero_point, self.levels - 1 - self.zero_point

    def quantize(self, x: Tensor) -> Tensor:
        """Return the integers that stand for ``x``, as floats in the shape of ``x``."""
        return (torch.round(x / self.scale) + self.zero_point).clamp_(0, self.levels - 1)

    def dequantize(self, integers: Tensor) -> Tensor:
        """Return the values that integers stand for."""
        return (integers - self.zero_point) * self.scale

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return ``x`` rounded to the grid."""
        low, high = self._bounds
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
        return _fault(self.bits, self.scale, self.zero_point)

    def config(self) -> dict[str, Any]:
        """Return its bits."""
        return {"kind": "affine", "bits": self.bits}

    def tensors(self) -> dict[str, Tensor]:
        """Return scale and zero point."""
        return {"scale": self.scale, "zero_point": self.zero_point}

    def to(self, device: torch.device) -> "AffineGrid":
        """Return the grid with its tensors on another device."""
        return AffineGrid(self.bits, self.scale.to(device), self.zero_point.to(device))


@dataclass(frozen=True)
class SplitGrid:
    """Two grids for the two halves of what a concatenation gives, split along axis 1.

    Source: Q-Diffusion (arXiv 2302.04304), section 3.3, "shortcut-splitting quantization".

    Attributes:
        index: channels in the first half.
        first: grid of channels below ``index``.
        second: grid of the others.
    """

    index: int
    first: AffineGrid
    second: AffineGrid

    @property
    def bits(self) -> int:
        """Bits of an integer on either grid."""
        return max(self.first.bits, self.second.bits)

    def dense(self, shape: Sequence[int]) -> AffineGrid:
        """Return scale and zero point for each channel along axis 1 of a tensor of a shape."""
        rows = self.first.scale.shape[0] if self.first.scale.dim() else 1
        rest = (1,) * (len(shape) - 2)
        sizes = (rows, self.index, *rest), (rows, shape[1] - self.index, *rest)

        def joined(first: Tensor, second: Tensor) -> Tensor:
            return torch.cat([first.expand(sizes[0]), second.expand(sizes[1])], dim=1)

        return AffineGrid(
            self.bits,
            joined(self.first.scale, self.second.scale),
            joined(self.first.zero_point, self.second.zero_point),
        )

    def quantize(self, x: Tensor) -> Tensor:
        """Return the integers that stand for ``x``, as floats in the shape of ``x``."""
        return self.dense(x.shape).quantize(x)

    def dequantize(self, integers: Tensor) -> Tensor:
        """Return the values that integers stand for."""
        return self.dense(integers.shape).dequantize(integers)

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return ``x`` rounded, each half to its own grid."""
        return torch.cat([self.first(x[:, : self.index]), self.second(x[:, self.index :])], dim=1)

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again."""
        if self.first.bits != self.second.bits:
            return f"whose halves have {self.first.bits} and {self.second.bits} bits"
        if self.first.scale.shape != self.second.scale.shape:
            return "whose halves have scales of different shapes"
        if type(self.index) is not int or self.index < 1:
            return f"split at {self.index!r}"
        if weight_shape is not None and not 0 < self.index < weight_shape[1]:
            return f"split at {self.index} of {weight_shape[1]} channels"
        return self.first.fault(weight_shape) or self.second.fault(weight_shape)

    def config(self) -> dict[str, Any]:
        """Return bits and the index."""
        return {"kind": "split", "bits": self.bits, "index": self.index}

    def tensors(self) -> dict[str, Tensor]:
        """Return scales and zero points, those of both halves stacked along a new first axis."""
        first, second = self.first.tensors(), self.second.tensors()
        return {name: torch.stack([first[name], second[name]]) for name in first}

    def to(self, device: torch.device) -> "SplitGrid":
        """Return the grid with its tensors on another device."""
        return SplitGrid(self.index, self.first.to(device), self.second.to(device))


@dataclass(frozen=True)
class StepGrid:
    """One per-tensor grid for each sampling step, as TFMQ-DM (arXiv 2311.16503) has for activations.

    Attributes:
        bits: 2 to 8, or 16.
        scale: float32 [steps].
        zero_point: integers as float32 [steps].
    """

    bits: int
    scale: Tensor
    zero_point: Tensor

    def __post_init__(self) -> None:
        _check_bits(self.bits)

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return each row of ``x`` [batch, ...] rounded to the grid of its step, or of the last one there is."""
        if steps is None:
            raise ValueError("a grid for each step was asked to round without being told the step")
        steps = steps.clamp(max=len(self.scale) - 1)
        shape = (-1, *(1,) * (x.dim() - 1))
        return AffineGrid(self.bits, self.scale[steps].view(shape), self.zero_point[steps].view(shape))(x)

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again."""
        if weight_shape is not None:
            return "that changes with the step, where a weight needs one that does not"
        if self.scale.dim() != 1 or not len(self.scale) or self.scale.shape != self.zero_point.shape:
            return f"of shape {tuple(self.scale.shape)}, where one value for each step is due"
        return _fault(self.bits, self.scale, self.zero_point)

    def config(self) -> dict[str, Any]:
        """Return its bits."""
        return {"kind": "steps", "bits": self.bits}

    def tensors(self) -> dict[str, Tensor]:
        """Return scales and zero points."""
        return {"scale": self.scale, "zero_point": self.zero_point}

    def to(self, device: torch.device) -> "StepGrid":
        """Return the grid with its tensors on another device."""
        return StepGrid(self.bits, self.scale.to(device), self.zero_point.to(device))


@dataclass(frozen=True)
class DynamicGrid:
    """An asymmetric grid from the extremes of each slice at hand, as ViDiT-Q (arXiv 2406.02540) has for tokens.

    Attributes:
        bits: 2 to 8, or 16.
        axes: how many trailing axes share a range: 1 gives each token its own, 3 each image [batch, channels,
            height, width] its own.
    """

    bits: int
    axes: int = 1

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if type(self.axes) is not int or not 1 <= self.axes <= MOST_AXES:
            raise ValueError(f"a range over {self.axes!r} axes is not offered: use 1 to {MOST_AXES}")

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return ``x`` rounded, each slice to the grid of its own extremes.

        Raises:
            ValueError: a range would reach over the batch axis, so that an image would depend on its neighbours.
        """
        if self.axes >= x.dim():
            raise ValueError(f"a range over {self.axes} axes of {tuple(x.shape)} would reach over the batch")
        over = tuple(range(x.dim() - self.axes, x.dim()))
        low, high = x.detach().amin(over, keepdim=True), x.detach().amax(over, keepdim=True)
        return affine_grid(low, high, self.bits)(x)

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again."""
        if weight_shape is not None:
            return "that changes with its input, where a weight needs one that does not"
        return None

    def config(self) -> dict[str, Any]:
        """Return bits and axes."""
        return {"kind": "dynamic", "bits": self.bits, "axes": self.axes}

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def to(self, device: torch.device) -> "DynamicGrid":
        """Return itself."""
        return self


def grid_from_parts(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Grid:
    """Return the grid that gave a configuration and tensors.

    Raises:
        ValueError: they are not those of a grid.
    """
    try:
        kind, bits = config["kind"], config["bits"]
        if kind == "dynamic":
            if tensors:
                raise ValueError(f"it has {', '.join(tensors)}, which it cannot use")
            return DynamicGrid(bits, config["axes"])
        scale, zero_point = tensors["scale"], tensors["zero_point"]
        if scale.dtype != torch.float32 or zero_point.dtype != torch.float32:
            raise ValueError(f"its scale is {scale.dtype} and its zero point {zero_point.dtype}, not float32")
        if kind == "affine":
            return AffineGrid(bits, scale, zero_point)
        if kind == "steps":
            return StepGrid(bits, scale, zero_point)
        if kind == "split":
            first, second = (AffineGrid(bits, *half) for half in zip(scale, zero_point, strict=True))
            return SplitGrid(config["index"], first, second)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"it is incomplete: {error}") from error
    raise ValueError(f"its kind {kind!r} is not known")


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


def _check_bits(bits: Any) -> None:
    if type(bits) is not int or bits not in SOFTMAX_BITS:
        raise ValueError(f"a grid of {bits!r} bits is not offered: use one of {', '.join(map(str, SOFTMAX_BITS))}")


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _fault(bits: int, scale: Tensor, zero_point: Tensor) -> str | None:
    if not bool(scale.isfinite().all() and zero_point.isfinite().all()):
        return "that is not finite"
    if not bool((scale > 0).all()):
        return "with a scale that is not positive"
    if not bool(((zero_point >= 0) & (zero_point < 2**bits) & (zero_point == zero_point.round())).all()):
        return f"with a zero point that is no integer from 0 to {2**bits - 1}"
    return None
