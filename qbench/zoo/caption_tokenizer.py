"""The tokenizer that the zoo's text models share: CLIP's kind (byte pairs of lower-case words), learned on captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.zoo.latent_networks import TOKENS
from qbench.zoo.paths import TOKENIZER

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTokenizer

BEGIN = "<|startoftext|>"
END = "<|endoftext|>"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-,."
WORD_END = "</w>"


def write_tokenizer(folder: Path, captions: Sequence[str]) -> None:
    """Learn byte pairs on captions and write the files of a CLIPTokenizer.

    Words of the captions become single tokens; any other word falls apart into letters. Equal captions give equal
    files.
    """
    words = sorted({word for caption in captions for word in caption.replace(",", " ").replace("-", " ").split()})
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], word[-1] + WORD_END]
        while len(parts) > 1:
            parts = _merged(parts, merges)
            if len(parts) > 1:
                merges.append((parts[0], parts[1]))
    singles = [*LETTERS, *(letter + WORD_END for letter in LETTERS)]
    tokens = dict.fromkeys([*singles, *("".join(pair) for pair in merges), BEGIN, END])
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", json.dumps({token: index for index, token in enumerate(tokens)}, indent=0))
    _write(folder / "merges.txt", "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges))
    said = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    _write(folder / "tokenizer_config.json", json.dumps(said, indent=1))


def load_tokenizer(folder: Path = TOKENIZER) -> CLIPTokenizer:
    """Return the tokenizer in a folder, the shipped one by default."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def tokens_of(captions: Sequence[str], tokenizer: CLIPTokenizer) -> Tensor:
    """Return captions as tokens [N, 16], cut or padded with the end mark."""
    tokens: Tensor = tokenizer(
        list(captions), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    ).input_ids
    return tokens


def _merged(parts: list[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    """Apply merges to the parts of a word as byte-pair encoding does: always the earliest learned pair first."""
    rank = {pair: index for index, pair in enumerate(merges)}
    while True:
        pairs = [(rank[pair], index) for index, pair in enumerate(pairwise(parts)) if pair in rank]
        if not pairs:
            return parts
        _, index = min(pairs)
        parts = [*parts[:index], parts[index] + parts[index + 1], *parts[index + 2 :]]


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
