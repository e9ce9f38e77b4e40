"""Where the shipped weights and cards lie. Imports nothing heavy."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped safetensors files."""

TOKENIZER = Path(__file__).parent / "tokenizer"
"""Folder of the tokenizer that the text models share."""

TOKENIZER_FILES = (TOKENIZER / "merges.txt", TOKENIZER / "vocab.json")
"""What decides the tokens of a caption."""

CAPTIONS = Path(__file__).parent / "captions"
"""Folder of the captions that are sampled and calibrated on."""

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
