"""Layers with a weight, wrapped so that weight and input can be quantized."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import local
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from qbench.bits import FULL_PRECISION_BITS
from qbench.errors import StageError
from qbench.quant.grid import Grid, WeightGrid
from qbench.quant.replacement import Replacement

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


class Geometry(NamedTuple):
    """How a two-dimensional convolution moves over its input, each as (vertical, horizontal).

    Attributes:
        stride: step of the window.
        padding: zeros around the input.
        dilation: distance between entries of the window.
        groups: into which the channels are divided.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class Clock(local):
    """Where in the trajectory the model is being called; each thread has its own, as batches may run side by side.

    Attributes:
        steps: sampling steps of the batch's rows [batch], None where nobody said.
    """

    steps: Tensor | None = None


class Tap:
    """A place where an activation can be observed and quantized: a layer's input or an operand of attention.

    Args:
        bits: what the harness gives this activation.
        clock: of the model.

    Attributes:
        grid: what the activation is rounded to, None for nothing.
        observer: sees the activation before it is rounded.
        enabled: whether the grid is in force.
    """

    def __init__(self, bits: int, clock: Clock | None = None) -> None:
        self._bits = bits
        self._clock = clock or Clock()
        self.grid: Grid | None = None
        self.observer: Callable[[Tensor], None] | None = None
        self.enabled = True

    @property
    def bits(self) -> int:
        """What the harness gives this activation."""
        return self._bits

    @property
    def is_idle(self) -> bool:
        """Whether it does nothing."""
        return self.observer is None and (self.grid is None or not self.enabled)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x`` [batch, ...], rounded if that is in force."""
        if self.observer is not None:
            self.observer(x)
        if self.grid is None or not self.enabled:
            return x
        return self.grid(x, self._clock.steps)


class QuantLayer(nn.Module):
    """A convolution or linear layer with an optional grid for its weight and one for its input.

    Parameters keep their names, so a state dict of the original fits. The original weight is kept beside the rounded
    one until the layer is folded, so that the layer can go back to full precision.

    Args:
        original: a Conv1d, Conv2d or Linear; its parameters are taken over, not copied.
        bits: what the harness gives this layer.
        split: the channel of its input where the second half of a concatenation begins, None for no such thing.
        clock: of the model.

    Attributes:
        split: as given; a method decides whether it uses it.
        tap: the input; whether it is enabled goes for the weight too.
        learned: the weight while it is being learned, in place of the rounded one.
        replacement: what computes in the weight's place, see ``replace``.
        operation: computes the output from an input, a weight and a bias, as the original does.
        geometry: of a Conv2d; None for other layers, and where the padding is not told in numbers.

    Raises:
        StageError: the layer is of another type or pads with something else than zeros.
    """

    def __init__(
        self, original: nn.Module, bits: LayerBits, split: int | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__()
        self.operation = _operation(original)
        self.geometry = _geometry(original)
        self.groups: int = getattr(original, "groups", 1)
        self.weight: Tensor = original.weight  # type: ignore[assignment]
        self.bias: Tensor | None = original.bias  # type: ignore[assignment]
        self.train(original.training)
        self._bits = bits
        self.split = split
        self.tap = Tap(bits.activations, clock)
        self.learned: Tensor | None = None
        self.replacement: Replacement | None = None
        self._grid: WeightGrid | None = None
        self._rounded: Tensor | None = None

    @property
    def bits(self) -> LayerBits:
        """What the harness gives this layer."""
        return self._bits

    @property
    def weight_grid(self) -> WeightGrid | None:
        """The weight's grid. Setting it rounds the weight to nearest."""
        return self._grid

    @weight_grid.setter
    def weight_grid(self, grid: WeightGrid | None) -> None:
        self._grid, self.replacement = grid, None
        self._rounded = None if grid is None else grid.dequantize(grid.quantize(self.weight.detach()))

    @property
    def input_grid(self) -> Grid | None:
        """The input's grid."""
        return self.tap.grid

    @input_grid.setter
    def input_grid(self, grid: Grid | None) -> None:
        self.tap.grid = grid

    @property
    def rounded(self) -> Tensor:
        """The weight that the layer computes with when it is quantized: the original one if it has no grid."""
        return self.weight if self._rounded is None else self._rounded

    def adopt(self, grid: WeightGrid, integers: Tensor) -> None:
        """Take over a grid together with the integers on it, however they were found.

        Args:
            grid: the grid.
            integers: 0 to 2**bits - 1, in the shape of the weight, of any type.
        """
        self._grid, self.replacement = grid, None
        self._rounded = grid.dequantize(integers.to(self.weight))

    def replace(self, module: Replacement) -> None:
        """Let a module compute in the weight's place, which then has no grid.

        Args:
            module: takes what the layer takes and returns what it returns.
        """
        self.weight_grid = None
        self.replacement = module.to(self.weight.device).train(self.training)

    @property
    def is_weight_quantized(self) -> bool:
        """Whether the weight has a grid or is replaced."""
        return self._grid is not None or self.replacement is not None

    @property
    def rounds_input(self) -> bool:
        """Whether the input is rounded by what replaces the weight, without a grid."""
        return self.replacement is not None and self.replacement.input_bits < FULL_PRECISION_BITS

    def fold(self) -> None:
        """Let the rounded weight, or what replaces it, take the place of the original for good."""
        if self.replacement is not None:
            self.weight.data = self.weight.new_empty(0)
        elif self._rounded is not None:
            self.weight.data = self._rounded
            self._rounded = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x``, in the original's shapes."""
        if self.replacement is not None and self.tap.enabled:
            output: Tensor = self.replacement(x, self.tap, self.bias)
            return output
        x = self.tap(x)
        weight = self.weight
        if self.tap.enabled:
            weight = self.rounded if self.learned is None else self.learned
        return self.operation(x, weight, self.bias)


def named_layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, str, nn.Module]]:
    """Yield every place that holds a layer that QuantLayer wraps: parent, name in it, full name, layer.

    One layer may be held in two places (diffusers' Downsample2D does so), and then comes twice.
    """
    for parent_name, parent in list(module.named_modules(remove_duplicate=False)):
        for child_name, child in list(parent._modules.items()):  # named_children() hides second names
            if child is not None and is_quantizable(child):
                yield parent, child_name, f"{parent_name}.{child_name}" if parent_name else child_name, child


def is_quantizable(module: nn.Module) -> bool:
    """Whether a module is of a type that QuantLayer wraps."""
    return type(module) in (nn.Conv1d, nn.Conv2d, nn.Linear)


def _geometry(original: nn.Module) -> Geometry | None:
    if not isinstance(original, nn.Conv2d) or isinstance(original.padding, str):
        return None
    stride, padding, dilation = ((pair[0], pair[1]) for pair in (original.stride, original.padding, original.dilation))
    return Geometry(stride, padding, dilation, original.groups)


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
