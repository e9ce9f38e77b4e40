"""Where the shipped weights and cards lie. Imports nothing heavy."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped safetensors files."""

CARDS = Path(__file__).parent / "cards"
"""Folder of the shipped model cards."""


def weights_path(name: str) -> Path:
    """Path of a shipped safetensors file.

    Args:
        name: Name without the suffix, e.g. `tiny-ddim`.
    """
    return WEIGHTS / f"{name}.safetensors"


def card_path(name: str) -> Path:
    """Path of the card that describes a shipped file."""
    return CARDS / f"{name}.md"
