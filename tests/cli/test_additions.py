"""``--set KEY+=VALUE`` adds to the lists of a suite."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]


def cells(answer: Any) -> list[str]:
    return [cell["cell"] for cell in answer.json["cells"]]


def test_entries_are_added_one_after_the_other(qbench: Qbench, micro_suite: MicroSuite) -> None:
    suite = micro_suite(bits=["W4A32"])
    more = ["--set", "methods+=other-round", "--set", "methods+=[{name: round, preset: tight}]", "--set", "seeds+=3"]
    assert cells(qbench("plan", suite, "--json", *more)) == [
        f"micro.{name}.s{seed}"
        for seed in (0, 3)
        for name in ("full-precision.W32A32", "round.W4A32", "other-round.W4A32", "round-tight.W4A32")
    ]


def test_a_suite_that_only_includes_others_has_it_in_them(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path
) -> None:
    micro_suite(bits=["W4A32"])
    (workplace / "outer.yaml").write_text("name: outer\ninclude: [micro.yaml]\n")
    found = cells(qbench("plan", "outer.yaml", "--json", "--set", "methods+=other-round"))
    assert found[-1] == "micro.other-round.W4A32.s0"


def test_what_is_replaced_may_leave_an_exclusion_without_a_cell(qbench: Qbench, micro_suite: MicroSuite) -> None:
    suite = micro_suite(exclude=[{"method": "round", "bits": "W4A8"}])
    found = cells(qbench("plan", suite, "--json", "--set", "methods=[other-round]"))
    assert found[1:] == ["micro.other-round.W4A32.s0", "micro.other-round.W4A8.s0"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("methods+=other-rond", "--set methods+: unknown method 'other-rond': did you mean 'other-round'?"),
        ("methods+={name: round, settings: {shar: 1}}", "--set methods+.settings.shar: unknown key 'shar'"),
        ("samples+=3", "--set samples+: only to workloads, methods, bits"),
        ("method+=round", "--set method+: a suite has no such key: did you mean 'methods'?"),
    ],
)
def test_what_is_wrong_is_told_of_the_option(qbench: Qbench, micro_suite: MicroSuite, option: str, words: str) -> None:
    answer = qbench("plan", micro_suite(), "--set", option)
    assert answer.code == 1
    assert words in answer.err
