"""Grids for what one scale does not suit: halves of a concatenation, sampling steps, tokens, channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qbench.quant.grid import AffineGrid, Grid, affine_grid, check_bits, fault_of

MOST_AXES = 3
"""Trailing axes of what a convolution of images sees."""


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
        check_bits(self.bits)

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return each row of ``x`` [batch, ...] rounded to the grid of its step, or of the last one there is."""
        if steps is None:
            raise ValueError("a grid for each step was asked to round without being told the step")
        steps = steps.clamp(max=len(self.scale) - 1)
        shape = (-1, *(1,) * (x.dim() - 1))
        return AffineGrid(self.bits, self.scale[steps].view(shape), self.zero_point[steps].view(shape)).once(x)

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again."""
        if weight_shape is not None:
            return "that changes with the step, where a weight needs one that does not"
        if self.scale.dim() != 1 or not len(self.scale) or self.scale.shape != self.zero_point.shape:
            return f"of shape {tuple(self.scale.shape)}, where one value for each step is due"
        return fault_of(self.bits, self.scale, self.zero_point)

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
        check_bits(self.bits)
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
        return affine_grid(low, high, self.bits).once(x)

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


@dataclass(frozen=True)
class ChannelScaledGrid:
    """A grid for values that are divided by a factor of their input channel before, and multiplied by it behind.

    Where a layer's input has the factors s and its weight 1 / s, what is rounded is X / s and W * s, whose product is
    that of X and W: no layer before has to take the factors over.

    Source: SmoothQuant (arXiv 2211.10438), section 4, equation 3.

    Attributes:
        inner: what divided values are rounded to; a weight needs one that does not change.
        factor: float32, positive, one for each input channel, in a shape that broadcasts against the trailing axes:
            [channels] for tokens and weights of linear layers, [channels, 1, 1] for images and their convolutions.
    """

    inner: "AffineGrid | StepGrid | DynamicGrid"
    factor: Tensor

    @property
    def bits(self) -> int:
        """Bits of an integer on the inner grid."""
        return self.inner.bits

    @property
    def _static(self) -> AffineGrid:
        if not isinstance(self.inner, AffineGrid):
            raise ValueError(f"a {type(self.inner).__name__} changes, so its integers alone stand for nothing")
        return self.inner

    def dense(self, shape: Sequence[int]) -> AffineGrid:
        """Return scale and zero point for each input channel of a tensor of a shape."""
        scale = self._static.scale * self.factor
        return AffineGrid(self.bits, scale, self._static.zero_point.expand_as(scale))

    def quantize(self, x: Tensor) -> Tensor:
        """Return the integers that stand for ``x``, as floats in the shape of ``x``."""
        return self._static.quantize(x / self.factor)

    def dequantize(self, integers: Tensor) -> Tensor:
        """Return the values that integers stand for."""
        return self._static.dequantize(integers) * self.factor

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return ``x`` rounded, each channel at its own scale."""
        return self.inner(x / self.factor, steps) * self.factor

    def fits(self, channels: int, axes: int) -> bool:
        """Whether it has one factor for each channel.

        Args:
            channels: of a layer's input, or of its weight.
            axes: of the weight.
        """
        return self.factor.shape == (channels, *(1,) * (axes - 2))

    def fault(self, weight_shape: Sequence[int] | None) -> str | None:
        """Return what keeps the grid from being stored and loaded again."""
        if not 1 <= self.factor.dim() <= MOST_AXES or (
            weight_shape is not None and not self.fits(weight_shape[1], len(weight_shape))
        ):
            return f"with factors of shape {tuple(self.factor.shape)}, where one for each input channel is due"
        if not bool((self.factor.isfinite() & (self.factor > 0)).all()):
            return "with a factor that is not positive and finite"
        return self.inner.fault(weight_shape)

    def config(self) -> dict[str, Any]:
        """Return bits and what the inner grid says of itself."""
        return {"kind": "channel-scaled", "bits": self.bits, "inner": self.inner.config()}

    def tensors(self) -> dict[str, Tensor]:
        """Return factors, and the inner grid's tensors."""
        return {"factor": self.factor, **self.inner.tensors()}

    def to(self, device: torch.device) -> "ChannelScaledGrid":
        """Return the grid with its tensors on another device."""
        return ChannelScaledGrid(self.inner.to(device), self.factor.to(device))


def grid_from_parts(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Grid:
    """Return the grid that gave a configuration and tensors.

    Raises:
        ValueError: they are not those of a grid.
    """
    try:
        kind, bits = config["kind"], config["bits"]
        if kind == "channel-scaled":
            return _channel_scaled(bits, config["inner"], tensors)
        if "factor" in tensors:
            raise ValueError("it has factors, which it cannot use")
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


def _channel_scaled(bits: Any, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ChannelScaledGrid:
    factor = tensors["factor"]
    if factor.dtype != torch.float32:
        raise ValueError(f"its factors are {factor.dtype}, not float32")
    inner = grid_from_parts(config, {name: tensor for name, tensor in tensors.items() if name != "factor"})
    if not isinstance(inner, AffineGrid | StepGrid | DynamicGrid) or inner.bits != bits:
        raise ValueError(f"its inner grid is a {type(inner).__name__} of {inner.bits} bits, where {bits} are due")
    return ChannelScaledGrid(inner, factor)
