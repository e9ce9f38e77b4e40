"""A denoiser whose layers can be quantized."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION_BITS, BitWidth
from qbench.diffusion.structures import Context, Structure
from qbench.errors import StageError
from qbench.quant.attention import AttentionTaps, is_attention, tap_attention
from qbench.quant.data import CalibrationData
from qbench.quant.layers import Clock, LayerBits, QuantLayer, Tap, named_layers

_UNQUANTIZED = (nn.GroupNorm, nn.LayerNorm, nn.Embedding, nn.BatchNorm2d)


class QuantModel:
    """Wraps every convolution, linear layer and attention of a denoiser in place and gives each its bits.

    It runs in full precision inside ``full_precision()``, with chosen layers quantized inside ``quantizing_only()``,
    and with everything quantized that has a grid otherwise; ``freeze()`` folds the weights for sampling.

    Args:
        module: the denoiser, taken over.
        structure: its layout.
        bits: the cell's bits; the softmax output has the activations' if no others are named.
        boundary_bits: weight bits of the first and last layer where these are quantized; None makes no exception.

    Attributes:
        layers: every wrapped layer by its name in ``module``, in the order of the modules.
        attentions: the operands of every attention by its name in ``module``.
        taps: every activation that can be quantized: a layer's input under the layer's name, and the operands of an
            attention under ``<attention>.q``, ``.k``, ``.softmax`` and ``.v``.

    Raises:
        StageError: a parameter belongs to a layer of a type that is not known, nothing can be quantized, a weight is
            not finite or of half precision, or the structure names a layer that is not there.
    """

    def __init__(
        self, module: nn.Module, structure: Structure, bits: BitWidth, boundary_bits: int | None = None
    ) -> None:
        self.module = module
        self.structure = structure
        self.bits = bits
        self.layers: dict[str, QuantLayer] = {}
        self.attentions: dict[str, AttentionTaps] = {}
        self._clock = Clock()
        self._is_frozen = False
        self._wrap_layers(boundary_bits)
        self._tap_attentions()
        self.taps: dict[str, Tap] = {name: layer.tap for name, layer in self.layers.items()}
        for name, taps in self.attentions.items():
            self.taps |= taps.by_name(name)

    def left_out(self) -> list[str]:
        """Return what stays in full precision against the cell's bits: names of layers and of attention operands."""
        left = [
            name
            for name, layer in self.layers.items()
            if layer.bits.weights < FULL_PRECISION_BITS and not layer.is_weight_quantized
        ]
        rounded = {name for name, layer in self.layers.items() if layer.rounds_input}
        rounded |= {name for name, tap in self.taps.items() if tap.grid is not None}
        left += [name for name, tap in self.taps.items() if tap.bits < FULL_PRECISION_BITS and name not in rounded]
        return list(dict.fromkeys(left))

    def freeze(self) -> None:
        """Fold all weights: the state for sampling. Full precision is gone then."""
        for layer in self.layers.values():
            layer.fold()
        self._is_frozen = True

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Let no grid be in force while the context lasts.

        Raises:
            ValueError: the model is frozen.
        """
        with self.quantizing_only(()):
            yield

    @contextmanager
    def quantizing_only(self, names: Collection[str]) -> Iterator[None]:
        """Let only the grids of some layers and attention operands be in force while the context lasts.

        Args:
            names: of taps; a layer's goes for its weight and its input.

        Raises:
            ValueError: there is no such tap, or the model is frozen.
        """
        if self._is_frozen:
            raise ValueError("the model is frozen, so it has no full precision to go back to")
        unknown = [name for name in names if name not in self.taps]
        if unknown:
            raise ValueError(f"the denoiser has no layer or attention operand {unknown[0]!r}")
        before = [tap.enabled for tap in self.taps.values()]
        for name, tap in self.taps.items():
            tap.enabled = name in names
        try:
            yield
        finally:
            for tap, enabled in zip(self.taps.values(), before, strict=True):
                tap.enabled = enabled

    @contextmanager
    def observing(self, make: Callable[[str], Callable[[Tensor], None]]) -> Iterator[None]:
        """Let an observer see each activation that can be quantized, before it is, while the context lasts.

        Observers from outside the context see nothing meanwhile.

        Args:
            make: returns the observer of a tap from its name.
        """
        before = [tap.observer for tap in self.taps.values()]
        for name, tap in self.taps.items():
            tap.observer = make(name)
        try:
            yield
        finally:
            for tap, observer in zip(self.taps.values(), before, strict=True):
                tap.observer = observer

    @contextmanager
    def at(self, steps: Tensor | None) -> Iterator[None]:
        """Tell grids that depend on the step where the rows of a batch come from, while the context lasts."""
        before, self._clock.steps = self._clock.steps, steps
        try:
            yield
        finally:
            self._clock.steps = before

    def __call__(
        self, x: Tensor, timesteps: Tensor, context: Context | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Estimate noise.

        Args:
            x: [batch, *latent shape].
            timesteps: [batch].
            context: what the denoiser is conditioned on.
            steps: index of the sampling step of each row [batch], for grids that depend on it.

        Returns:
            The noise in ``x``, in its shape.
        """
        with self.at(steps):
            return self.structure.call(self.module, x, timesteps, context or {})

    def _wrap_layers(self, boundary_bits: int | None) -> None:
        wrapped: dict[int, QuantLayer] = {}
        owners: dict[int, str] = {}
        # One layer may be held under two names: both must show the same wrapper.
        for parent, child_name, name, child in list(named_layers(self.module)):
            if id(child) not in wrapped:
                layer = QuantLayer(
                    child, self._bits_of(name, boundary_bits), self.structure.splits.get(name), self._clock
                )
                owner = owners.setdefault(id(layer.weight), name)
                if owner != name:
                    raise StageError(
                        f"the layers {owner!r} and {name!r} share a weight, so they cannot be quantized apart"
                    )
                wrapped[id(child)] = layer
                self.layers[name] = layer
            setattr(parent, child_name, wrapped[id(child)])
        self._check_every_parameter_is_accounted_for()
        named = [*self.structure.splits, *(() if boundary_bits is None else self.structure.boundary_layers)]
        absent = next((name for name in named if name not in self.layers), None)
        if absent is not None:
            raise StageError(f"the denoiser has no layer {absent!r}, which its structure names")

    def _tap_attentions(self) -> None:
        activations = self.bits.activations
        softmax = activations if self.bits.softmax is None else self.bits.softmax
        for name, module in self.module.named_modules():
            if is_attention(module):
                self.attentions[name] = tap_attention(name, module, activations, softmax, self._clock)

    def _bits_of(self, name: str, boundary_bits: int | None) -> LayerBits:
        weights = self.bits.weights
        if boundary_bits is not None and self.bits.quantizes_weights and name in self.structure.boundary_layers:
            weights = boundary_bits
        return LayerBits(weights, self.bits.activations)

    def _check_every_parameter_is_accounted_for(self) -> None:
        if not self.layers:
            raise StageError("the denoiser has no convolution or linear layer, so there is nothing to quantize")
        for name, module in self.module.named_modules():
            owns_parameters = next(module.parameters(recurse=False), None) is not None
            if owns_parameters and not isinstance(module, (QuantLayer, *_UNQUANTIZED)):
                raise StageError(
                    f"the layer {name!r} is a {type(module).__name__}, which qbench does not know how to account for"
                )
        for name, parameter in self.module.named_parameters():
            if parameter.dtype not in (torch.float32, torch.float64):
                raise StageError(
                    f"the denoiser's {name!r} is {parameter.dtype}: what is quantized must be float32 to begin with"
                )
            if not bool(parameter.isfinite().all()):
                raise StageError(f"the denoiser's {name!r} holds NaN or infinity, so it cannot be quantized")


@torch.no_grad()
def run_over(model: QuantModel, data: CalibrationData) -> None:
    """Run a model over calibration data in batches, for what its observers see.

    Args:
        model: the model.
        data: the data.

    Raises:
        ValueError: there are no rows.
    """
    if not len(data):
        raise ValueError("the calibration data has no rows, so there is nothing to calibrate on")
    for start in range(0, len(data), data.batch_size):
        rows = slice(start, start + data.batch_size)
        context = {name: tensor[rows] for name, tensor in data.context.items()}
        model(data.x[rows], data.timesteps[rows], context, data.step_indices[rows])
        data.report(len(data.x[rows]) / len(data))
