"""The tokenizer of CLIP as files, for checkpoints that come without one."""

import gzip
import json
from pathlib import Path

MERGES = 49152 - 256 - 2
"""Of the vocabulary's file only so many merges belong to CLIP (openai/CLIP, clip/simple_tokenizer.py)."""

START, END = "<|startoftext|>", "<|endoftext|>"
_SETTINGS = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": 77,
    "do_lower_case": True,
    "bos_token": START,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
}


def write_clip_tokenizer(folder: Path) -> None:
    """Write the tokenizer of openai/clip-vit-large-patch14 as transformers reads it.

    Its vocabulary is the one of every CLIP, which open_clip brings along.
    """
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : MERGES + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(_SETTINGS, indent=2), encoding="utf-8")
