"""qbench: measure what quantization does to diffusion models."""

__version__ = "0.1.0"
