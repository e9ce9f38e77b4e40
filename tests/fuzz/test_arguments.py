"""Command lines that nobody meant."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

Fuzz = Callable[..., Counter[str]]
Law = Callable[..., str]
COMMANDS = (
    ["run"], ["run", "micro.yaml"], ["run", "micro.yaml", "--dry-run"], ["plan", "micro.yaml"], ["check", "micro.yaml"],
    ["diff"], ["score"], ["leaderboard"], ["export"], ["methods", "list"], ["methods", "show"], ["workloads", "show"],
    ["metrics", "show"], ["suites", "list"], ["suites", "show"], ["store", "ls"], ["store", "gc"], ["store", "verify"],
    ["doctor"], [],
)  # fmt: skip
OPTIONS = (
    "--only", "--set", "--device", "--store", "--results", "--batch-size", "--threads", "--cache-gb", "--json", "--to",
    "--standin", "--executor", "--metrics", "--reference", "--full-precision", "--captions", "--older-than",
    "--published",
    "--collect", "--suite", "--help", "--version", "--", "-x", "--tf32",
)  # fmt: skip
VALUES = (
    "micro", "micro.yaml", "results", "store", "micro/micro.round.W4A8.s0", "round", "mse-to-fp",
    "micro-contrast", "cpu",
    "cuda:7", "cuda:-1", "cuda:99999999999999999999", "mps", "meta", "auto", "inline", "ray", "1", "0", "-1",
    "1e400", "nan",
    "method=round", "bits=W4A8", "seed=0", "samples=12", "samples=1e9", "title=[", "name=../x", "name='a\\0b'",
    "micro.yaml/x",
    "methods=[{name: round, as: ../../x}]", "include=[micro.yaml]", "include=[/etc/passwd]",
    "workloads=[{pipeline: ..}]",
    "micro-contrast.power=3", "title=0001-01-01T00:00:00+12:00", "=", "a=", "=a", "/dev/null", "/dev/zero",
    "/proc/self/mem",
)  # fmt: skip


@pytest.fixture
def world(finished_suite: Path, workplace: Path, nothing_beside: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished suite. What would take long, or leave this machine, is not started at all."""
    monkeypatch.setattr("qbench.execution.inline.Inline.run", lambda self, settled: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    return workplace


def test_any_words_after_any_command(fuzz: Fuzz, keeps_the_law: Law, world: Path, hostile: Any):
    words = st.one_of(st.sampled_from(OPTIONS), st.sampled_from(VALUES), st.sampled_from(VALUES), hostile.texts)
    lines = st.tuples(st.sampled_from(COMMANDS), st.lists(words, max_size=6)).map(lambda each: [*each[0], *each[1]])

    def prepare(line: list[str]) -> Callable[[], str]:
        # What is written where an option says so is written where its user wants it.
        return partial(keeps_the_law, *(word for word in line if not names_a_place(word)))

    counts = fuzz(prepare, lines, 80, 700, world)
    assert min(counts["works"], counts["refused"], counts["usage"]) > 0


def names_a_place(word: str) -> bool:
    return word.startswith(("/", "~", "..")) or "/tmp" in word


@pytest.mark.parametrize(
    ("line", "few", "many"),
    [
        (["plan", "micro.yaml", "--set", "{}"], 20, 100),
        (["plan", "micro.yaml", "--only", "{}"], 8, 50),
        (["plan", "micro.yaml", "--store", "{}"], 6, 40),
        (["check", "micro.yaml", "--results", "{}"], 6, 40),
        (["plan", "{}"], 6, 40),
        (["score", "{}", "--metrics", "micro-contrast"], 5, 30),
        (["score", "images", "--metrics", "{}"], 5, 30),
        (["export", "{}", "--to", "out"], 5, 30),
        (["diff", "results", "{}"], 5, 30),
        (["methods", "show", "{}"], 5, 30),
    ],
    ids=lambda each: "-".join(each[:3]).replace(".yaml", "") if isinstance(each, list) else None,
)
def test_any_value_of_an_option(
    fuzz: Fuzz, keeps_the_law: Law, world: Path, hostile: Any, line: list[str], few: int, many: int
):
    keys = st.sampled_from(["", "name=", "title=", "methods=", "bits=", "workloads=", "seeds=", "method=", "include="])
    values = st.one_of(hostile.texts, st.sampled_from(VALUES), st.tuples(keys, hostile.texts).map("".join))

    def prepare(value: str) -> Callable[[], str]:
        return partial(keeps_the_law, *(word.format(value) for word in line))

    assert fuzz(prepare, values, few, many, world)


@pytest.mark.parametrize("option", ["--store", "--results"])
def test_whatever_a_place_is_called(fuzz: Fuzz, keeps_the_law: Law, world: Path, hostile: Any, option: str):
    def prepare(value: str) -> Callable[[], str]:
        return partial(keeps_the_law, "run", "micro.yaml", option, "new/" + value.replace("..", "").lstrip("/"))

    counts = fuzz(prepare, hostile.texts, 6, 40, world)
    assert counts["works"]
