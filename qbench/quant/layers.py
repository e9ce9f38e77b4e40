"""Layers with a weight, wrapped so that weight and input can be quantized."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from qbench.errors import StageError
from qbench.quant.grid import AffineGrid

Operation = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class LayerBits:
    """The bits that the harness gives a layer, 32 for none; a method can only leave the layer out.

    Attributes:
        weights: bits of the weight.
        activations: bits of the input.
    """

    weights: int
    activations: int


class QuantLayer(nn.Module):
    """A convolution or linear layer with an optional grid for its weight and one for its input.

    Parameters keep their names, so a state dict of the original fits.

    Args:
        original: a Conv1d, Conv2d or Linear; its parameters are taken over, not copied.
        bits: what the harness gives this layer.

    Raises:
        StageError: the layer is of another type or pads with something else than zeros.
    """

    def __init__(self, original: nn.Module, bits: LayerBits) -> None:
        super().__init__()
        self._operation = _operation(original)
        self.weight: Tensor = original.weight  # type: ignore[assignment]
        self.bias: Tensor | None = original.bias  # type: ignore[assignment]
        self._bits = bits
        self.weight_grid: AffineGrid | None = None
        self.input_grid: AffineGrid | None = None
        self.observer: Callable[[Tensor], None] | None = None
        self._folded = False

    @property
    def bits(self) -> LayerBits:
        """What the harness gives this layer."""
        return self._bits

    def fold(self) -> None:
        """Round the weight to its grid once and for all, so that no call repeats it."""
        if self.weight_grid is not None and not self._folded:
            self.weight.data = self.weight_grid(self.weight.data)
            self._folded = True

    def adopt(self, grid: AffineGrid, integers: Tensor) -> None:
        """Take over a stored grid and the integers on it, folded."""
        self.weight_grid = grid
        self.weight.data = grid.dequantize(integers.to(self.weight))
        self._folded = True

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x``, in the original's shapes."""
        if self.observer is not None:
            self.observer(x)
        if self.input_grid is not None:
            x = self.input_grid(x)
        weight = self.weight
        if self.weight_grid is not None and not self._folded:
            weight = self.weight_grid(weight)
        return self._operation(x, weight, self.bias)


def is_quantizable(module: nn.Module) -> bool:
    """Whether a module is of a type that QuantLayer wraps."""
    return type(module) in (nn.Conv1d, nn.Conv2d, nn.Linear)


def _operation(original: nn.Module) -> Operation:
    if isinstance(original, nn.Linear):
        return functional.linear
    if isinstance(original, nn.Conv1d | nn.Conv2d):
        if original.padding_mode != "zeros":
            raise StageError(f"a convolution with padding mode {original.padding_mode!r} cannot be quantized")
        convolve = functional.conv1d if isinstance(original, nn.Conv1d) else functional.conv2d
        stride, padding, dilation, groups = original.stride, original.padding, original.dilation, original.groups

        def operation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return convolve(x, weight, bias, stride, padding, dilation, groups)

        return operation
    raise StageError(f"a {type(original).__name__} is not a layer that can be quantized")
