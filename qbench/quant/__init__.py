"""Quantization of a denoiser, in pure torch over (module, structure).

Names are loaded at first use, so that a method can say ``from qbench import quant`` and still be listed, and its
settings be read, without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qbench.quant.census import Coverage, coverage
    from qbench.quant.grid import AffineGrid, grid_from_range
    from qbench.quant.layers import LayerBits, QuantLayer
    from qbench.quant.model import QuantModel
    from qbench.quant.ranges import RunningMinMax, min_max_per_channel

_HOMES = {
    "AffineGrid": "grid",
    "Coverage": "census",
    "LayerBits": "layers",
    "QuantLayer": "layers",
    "QuantModel": "model",
    "RunningMinMax": "ranges",
    "coverage": "census",
    "grid_from_range": "grid",
    "min_max_per_channel": "ranges",
}
__all__ = [
    "AffineGrid",
    "Coverage",
    "LayerBits",
    "QuantLayer",
    "QuantModel",
    "RunningMinMax",
    "coverage",
    "grid_from_range",
    "min_max_per_channel",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
