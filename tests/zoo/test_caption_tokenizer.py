import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer

from qbench.zoo.caption_tokenizer import BEGIN, END, load_tokenizer, tokens_of, write_tokenizer
from qbench.zoo.garments import every_caption
from qbench.zoo.latent_networks import TOKENS
from qbench.zoo.paths import TOKENIZER

FILES = ("merges.txt", "tokenizer_config.json", "vocab.json")


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return load_tokenizer()


def test_the_shipped_files_are_what_is_learned_from_all_captions(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "again", every_caption())
    write_tokenizer(tmp_path / "backwards", every_caption()[::-1])
    assert sorted(path.name for path in TOKENIZER.iterdir()) == sorted(FILES)
    for name in FILES:
        shipped = (TOKENIZER / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == shipped
        assert (tmp_path / "backwards" / name).read_bytes() == shipped


def test_words_of_captions_are_single_tokens(tokenizer: CLIPTokenizer) -> None:
    for said in every_caption():
        assert tokenizer.tokenize(said) == [f"{word}</w>" for word in re.findall(r"\w+|[-,]", said)]


def test_no_caption_is_cut(tokenizer: CLIPTokenizer) -> None:
    assert max(len(tokenizer(said).input_ids) for said in every_caption()) <= TOKENS


def test_other_words_fall_apart_and_survive(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.tokenize("zebras") == ["z", "e", "br", "a", "s</w>"]
    assert tokenizer.tokenize("Dark Dress") == ["dark</w>", "dress</w>"]
    for said in ("a zebra in 1984", "t-shirt, dark and plain", "a photo of a plain grey bag, low"):
        found = tokenizer.decode(tokenizer(said).input_ids, skip_special_tokens=True)
        assert found.replace(" ", "") == said.replace(" ", "")


def test_tokens_begin_end_and_are_filled_up(tokenizer: CLIPTokenizer) -> None:
    begin, end = (tokenizer.convert_tokens_to_ids(mark) for mark in (BEGIN, END))
    assert (begin, end, len(tokenizer)) == (160, 161, 162)  # the end mark is the last: models look for the largest
    found = tokens_of(["", "a bag", "bag " * 40], tokenizer)
    assert (found.shape, found.dtype) == ((3, TOKENS), torch.int64)
    a, bag = tokenizer.convert_tokens_to_ids(["a</w>", "bag</w>"])
    assert found[0].tolist() == [begin] + [end] * 15
    assert found[1].tolist() == [begin, a, bag] + [end] * 13
    assert found[2].tolist() == [begin] + [bag] * 14 + [end]


def test_it_is_what_transformers_makes_of_the_folder(tokenizer: CLIPTokenizer) -> None:
    other = AutoTokenizer.from_pretrained(str(TOKENIZER), local_files_only=True)
    assert isinstance(tokenizer, CLIPTokenizer)
    said = [*every_caption()[::7], "zebras", "bag " * 40, ""]
    ids = other(said, padding="max_length", truncation=True, return_tensors="pt").input_ids  # the files know the length
    assert torch.equal(ids, tokens_of(said, tokenizer))
    vocabulary = json.loads((TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    assert tokenizer.get_vocab() == vocabulary
