"""qbench: measure what quantization does to diffusion models."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qbench.export.load import load_quantized

__all__ = ["__version__", "load_quantized"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for: it needs torch, which takes its time."""
    if name != "load_quantized":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qbench.export.load import load_quantized

    return load_quantized
