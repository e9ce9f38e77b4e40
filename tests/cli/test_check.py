"""What ``qbench check`` says to people and to the CI of their papers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]


class TestJson:
    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (("nowhere.yaml",), "nowhere.yaml: no such file"),
            (("micro.yaml", "--set", "samples=-1"), "--set samples: "),
            (("micro.yaml", "--only", "method=rond"), "did you mean 'round'"),
            (("micro.yaml", "--results", "micro.yaml"), "is a file, not a folder of results"),
        ],
        ids=["no suite", "a wrong value", "no cell", "no folder"],
    )
    def test_an_error_is_one_object_too(
        self, qbench: Qbench, micro_suite: MicroSuite, words: tuple[str, ...], reason: str
    ):
        micro_suite()
        answer = qbench("check", *words, "--json")
        assert answer.code == 1
        assert list(answer.json) == ["error"]
        assert reason in answer.json["error"]
        assert answer.err == f"qbench: {answer.json['error']}\n"

    def test_nothing_is_there_yet(self, qbench: Qbench, micro_suite: MicroSuite):
        answer = qbench("check", micro_suite(), "--json")
        assert (answer.code, answer.json["missing"], answer.json["problems"]) == (3, 3, [])
        assert {cell["reason"] for cell in answer.json["cells"]} == {"no record"}

    def test_failures_go_before_what_is_missing(self, qbench: Qbench, micro_suite: MicroSuite):
        path = micro_suite(methods=["raises", "round"])
        qbench("run", path, "--only", "method=raises")
        answer = qbench("check", path, "--json")
        assert answer.code == 1
        assert (answer.json["failed"], answer.json["missing"]) == (2, 2)


class TestOtherFiles:
    @pytest.fixture
    def records(self, finished_suite: Path, workplace: Path) -> Path:
        return workplace / "results" / "micro" / "records"

    def test_they_are_told_and_a_complete_suite_stays_complete(
        self, qbench: Qbench, finished_suite: Path, records: Path, workplace: Path
    ):
        (records / "damaged.json").write_text("{")
        (records / "copy.json").write_text((records / "micro.round.W4A8.s0.json").read_text())
        answer = qbench("check", finished_suite)
        assert (answer.code, answer.out) == (0, "3 complete, 0 failed, 0 missing\n")
        places = [line.partition(":")[0] for line in answer.err.splitlines()]
        assert places == ["micro/records/copy.json", "micro/records/damaged.json"]
        assert str(workplace) not in answer.err
        assert qbench("check", finished_suite, "--json").json["problems"] == answer.err.splitlines()

    def test_a_record_with_nan_does_not_count(self, qbench: Qbench, finished_suite: Path, records: Path):
        path = records / "micro.round.W4A8.s0.json"
        path.write_text(path.read_text().replace('"value": ', '"value": NaN, "was": ', 1))
        answer = qbench("check", finished_suite)
        assert answer.code == 3
        assert answer.out.startswith("micro.round.W4A8.s0: missing (micro/records/micro.round.W4A8.s0.json: not a ")
