"""A method's own module in the place of a quantized layer: a low-rank branch, a library's kernel.

Such a class is offered by the entry-point group ``qbench.layers``; the entry's name is the ``kind`` in its
configuration. So a packed checkpoint tells which package loads it, and can name nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from qbench.bits import FULL_PRECISION_BITS
from qbench.errors import DataError, PluginError
from qbench.plugin import load_class
from qbench.plugins import LAYERS

if TYPE_CHECKING:
    from qbench.quant.layers import QuantLayer, Tap


class Replacement(nn.Module, ABC):
    """What computes in place of a layer's weight wherever the layer is quantized.

    Full precision goes on with the layer's own weight. All that it holds is in buffers: parameters are the denoiser's.

    Attributes:
        weight_bits: bits that the weight is stored at; a branch of few parameters in more bits does not count.
        input_bits: bits that it rounds its input to by itself; 32 where that is left to the tap's grid.
    """

    weight_bits: int
    input_bits: int = FULL_PRECISION_BITS

    @abstractmethod
    def forward(self, x: Tensor, tap: Tap, bias: Tensor | None) -> Tensor:
        """Return the layer's output.

        Args:
            x: the layer's input.
            tap: to be called with what is multiplied with the quantized weight, and returns it rounded. An input that
                is rounded by itself (``input_bits``) goes through it too, so that observers see it.
            bias: of the layer, to be added.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return, as plain data, the ``kind`` that it is offered as, and what the tensors do not say."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by name, integers packed: their bytes are the size that tables show."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: QuantLayer) -> Self:
        """Return the module that gave a configuration and tensors; its outputs are the same to the bit.

        Args:
            config: from a file, so anything may be in it.
            tensors: likewise.
            layer: that it is for, in full precision.

        Raises:
            ValueError: they are not those of such a module, or of one for another layer.
        """

    def fault(self) -> str | None:
        """Return what keeps it from being stored and loaded again, as the end of a sentence, or None."""
        parameter = next((name for name, _ in self.named_parameters()), None)
        if parameter is not None:
            return f"whose {parameter} is a parameter, where a buffer is due"
        kind = self.config().get("kind")
        try:
            offered = load_class(LAYERS, str(kind), Replacement)
        except PluginError as error:
            return f"whose kind cannot be loaded again ({error})"
        if offered is not type(self):
            return f"whose kind {kind!r} is that of {offered.__module__}.{offered.__qualname__}"
        floats = {name: each for name, each in self.tensors().items() if each.is_floating_point()}
        broken = [name for name, each in floats.items() if not bool(each.isfinite().all())]
        return f"whose {broken[0]} is not finite" if broken else None


def load_replacement(config: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: QuantLayer) -> Replacement:
    """Return the module that a file describes, on the layer's device.

    Args:
        config: as ``config`` gave it.
        tensors: as ``tensors`` gave them.
        layer: that it is for.

    Raises:
        DataError: nobody who is installed offers such a module, or it does not fit the layer.
    """
    try:
        found = load_class(LAYERS, str(config.get("kind")), Replacement)
        return found.from_tensors(config, tensors, layer).to(layer.weight.device)
    except PluginError as error:
        raise DataError(f"it needs a layer that cannot be loaded: {error}") from error
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise DataError(f"it does not fit this denoiser: {error}") from error
