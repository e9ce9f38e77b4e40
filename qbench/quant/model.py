"""A denoiser whose layers can be quantized."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION_BITS, BitWidth
from qbench.diffusion.structures import Structure
from qbench.errors import StageError
from qbench.quant.layers import LayerBits, QuantLayer, is_quantizable

_UNQUANTIZED = (nn.GroupNorm, nn.LayerNorm, nn.Embedding, nn.BatchNorm2d)


class QuantModel:
    """Wraps every convolution and linear layer of a denoiser in place and gives each its bits.

    Args:
        module: the denoiser, taken over.
        structure: its layout.
        bits: the cell's bits.
        boundary_bits: weight bits of the first and last layer where these are quantized; None makes no exception.

    Attributes:
        layers: every wrapped layer by its name in ``module``, in the order of the modules.

    Raises:
        StageError: a parameter belongs to a layer of a type that is not known, nothing can be quantized, or the
            structure names a layer that is not there.
    """

    def __init__(
        self, module: nn.Module, structure: Structure, bits: BitWidth, boundary_bits: int | None = None
    ) -> None:
        self.module = module
        self.structure = structure
        self.bits = bits
        self.layers: dict[str, QuantLayer] = {}
        self._wrap_all(boundary_bits)

    def left_out(self) -> list[str]:
        """Return the names of layers whose weight or input stays in full precision against the cell's bits."""
        return [
            name
            for name, layer in self.layers.items()
            if (layer.bits.weights < FULL_PRECISION_BITS and layer.weight_grid is None)
            or (layer.bits.activations < FULL_PRECISION_BITS and layer.input_grid is None)
        ]

    def freeze(self) -> None:
        """Fold all weights: the state for sampling."""
        for layer in self.layers.values():
            layer.fold()

    @contextmanager
    def observing(self, make: Callable[[str], Callable[[Tensor], None]]) -> Iterator[None]:
        """Let an observer see each layer's input, before quantization, while the context lasts.

        Args:
            make: returns the observer of a layer from its name.
        """
        for name, layer in self.layers.items():
            layer.observer = make(name)
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.observer = None

    def __call__(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Estimate the noise in ``x`` [batch, *latent shape] at timesteps [batch]."""
        estimate: Tensor = self.module(x, timestep, return_dict=False)[0]
        return estimate

    def _wrap_all(self, boundary_bits: int | None) -> None:
        wrapped: dict[int, QuantLayer] = {}
        # One layer may be held under two names (diffusers' Downsample2D does so): both must show the same wrapper.
        for parent_name, parent in list(self.module.named_modules(remove_duplicate=False)):
            for child_name, child in list(parent._modules.items()):  # named_children() hides second names
                if child is None:
                    continue
                name = f"{parent_name}.{child_name}" if parent_name else child_name
                if id(child) in wrapped:
                    setattr(parent, child_name, wrapped[id(child)])
                elif is_quantizable(child):
                    layer = QuantLayer(child, self._bits_of(name, boundary_bits))
                    wrapped[id(child)] = layer
                    self.layers[name] = layer
                    setattr(parent, child_name, layer)
        self._check_every_parameter_is_accounted_for()
        absent = [name for name in self.structure.boundary_layers if name not in self.layers]
        if boundary_bits is not None and absent:
            raise StageError(f"the denoiser has no layer {absent[0]!r}, which its structure calls first or last")

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


@torch.inference_mode()
def run_over(
    model: QuantModel, x: Tensor, timesteps: Tensor, batch_size: int, report: Callable[[int], None] | None = None
) -> None:
    """Run a model over calibration data in batches, for what its observers see.

    Args:
        model: the model.
        x: [count, *latent shape].
        timesteps: [count].
        batch_size: rows at a time.
        report: called with the number of rows after each batch.
    """
    for start in range(0, len(x), batch_size):
        rows = x[start : start + batch_size]
        model(rows, timesteps[start : start + batch_size])
        if report is not None:
            report(len(rows))
