"""Records that somebody else made up, or that a disk has damaged."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from qbench.identity import digest
from qbench.records import read_record

Fuzz = Callable[..., Counter[str]]
Law = Callable[..., str]


@pytest.fixture
def records(finished_suite: Path, workplace: Path) -> list[Path]:
    """The records of a finished suite."""
    return sorted((workplace / "results" / "micro" / "records").glob("*.json"))


@pytest.fixture
def altered(records: list[Path], hostile: Any) -> Callable[[Any], None]:
    """Return a function that writes one record with edits, and puts the others back; it may vouch for what it says."""
    originals = {path: json.loads(path.read_text()) for path in records}

    def write(example: tuple[int, bool, Any]) -> None:
        number, vouches, edits = example
        for path, original in originals.items():
            path.write_text(json.dumps(original))
        path = records[number % len(records)]
        content = hostile.edited(originals[path], edits)
        if vouches and isinstance(content, dict):
            with suppress(TypeError, ValueError, KeyError):
                content["digest"] = digest(content["description"])
        path.write_text(hostile.nested(json.dumps(content)))

    return write


def some(hostile: Any) -> st.SearchStrategy[Any]:
    return st.tuples(st.integers(0, 5), st.booleans(), hostile.edits)


def test_reading_one(fuzz: Fuzz, read: Law, records: list[Path], altered: Callable[[Any], None], hostile: Any):
    def prepare(example: Any) -> Callable[[], str]:
        altered(example)
        path = records[example[0] % len(records)]
        return partial(read, read_record, path, names=str(path))

    counts = fuzz(prepare, some(hostile), 80, 2000)
    assert counts["works"]
    assert counts["refused"]


def test_the_bytes_of_one(fuzz: Fuzz, read: Law, records: list[Path], hostile: Any):
    path, content = records[0], records[0].read_bytes()

    def prepare(edits: Any) -> Callable[[], str]:
        path.write_bytes(hostile.edited_bytes(content, edits))
        return partial(read, read_record, path, names=str(path))

    assert fuzz(prepare, hostile.byte_edits, 40, 1000)["refused"]


COMMANDS = {
    "leaderboard": (["leaderboard", "results"], 8, 70),
    "collect": (["leaderboard", "results", "--collect", "--store", "store"], 6, 50),
    "check": (["check", "micro.yaml"], 10, 100),
    "diff": (["diff", "results", "others"], 10, 100),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_read_them(
    fuzz: Fuzz,
    keeps_the_law: Law,
    altered: Callable[[Any], None],
    workplace: Path,
    nothing_beside: None,
    hostile: Any,
    name: str,
):
    import shutil

    shutil.copytree(workplace / "results", workplace / "others")
    words, few, many = COMMANDS[name]
    keeps_the_law(*words)

    def prepare(example: Any) -> Callable[[], str]:
        altered(example)
        return partial(keeps_the_law, *words)

    assert fuzz(prepare, some(hostile), few, many, workplace / "results", workplace / "store" / "locks")["works"]
