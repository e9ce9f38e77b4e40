"""``qbench leaderboard`` and what it shows of a run that is going on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]
ROUND = "micro.round.W4A8.s0.json"


def make_pending(workplace: Path, name: str = ROUND) -> bytes:
    """Take a record back to what it was before its cell was run; return that."""
    path = workplace / "results" / "micro" / "records" / name
    raw = json.loads(path.read_text())
    raw |= {"status": "pending", "figures": {}, "profile": None, "curve": None, "stages": [], "environment": {}}
    path.write_text(json.dumps(raw))
    return path.read_bytes()


def forget(workplace: Path, metric: str, name: str = ROUND) -> None:
    """Take a figure out of the store."""
    raw = json.loads((workplace / "results" / "micro" / "records" / name).read_text())
    (workplace / "store" / "artefacts" / "score" / raw["results"][metric] / "manifest.json").unlink()


def row(workplace: Path, start: str = "| round | W4A8 |") -> str:
    lines = (workplace / "results" / "micro" / "table.md").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(start))


class TestCollect:
    def test_it_shows_what_the_store_has_and_writes_no_record(
        self, qbench: Qbench, finished_suite: Path, workplace: Path
    ):
        assert qbench("leaderboard").code == 0
        finished = row(workplace)
        record = make_pending(workplace)
        assert qbench("leaderboard").code == 0
        assert "not run" in row(workplace)
        answer = qbench("leaderboard", "--collect")
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.splitlines() == [
            "results/README.md: micro",
            "micro: 3 complete, 0 failed, 0 begun, 0 not run",
        ]
        assert row(workplace) == finished
        assert (workplace / "results" / "micro" / "records" / ROUND).read_bytes() == record

    def test_a_cell_with_some_figures_is_begun_and_shows_those(
        self, qbench: Qbench, finished_suite: Path, workplace: Path
    ):
        make_pending(workplace)
        forget(workplace, "micro-distance")
        answer = qbench("leaderboard", "--collect", "--store", "store", "--json")
        assert answer.json["cells"] == {"micro": {"complete": 2, "failed": 0, "begun": 1, "not run": 0}}
        assert row(workplace).count("not run") == 1

    def test_while_a_run_is_going_on(self, qbench: Qbench, start: Any, micro_suite: MicroSuite, workplace: Path):
        running = start("run", micro_suite(), pause="activations")
        running.reach_pause()
        answer = qbench("leaderboard", "--collect", "--json")
        assert answer.code == 0
        (counts,) = answer.json["cells"].values()
        assert counts["complete"] + counts["begun"] + counts["not run"] == 3
        assert counts["not run"] >= 1
        assert "not run" in row(workplace)
        running.go_on()
        assert running.wait() == 0
        assert qbench("leaderboard", "--collect", "--json").json["cells"]["micro"]["complete"] == 3

    def test_the_tables_of_a_finished_suite_are_those_without_it(
        self, qbench: Qbench, finished_suite: Path, workplace: Path
    ):
        qbench("leaderboard")
        before = {path: path.read_bytes() for path in (workplace / "results").rglob("*") if path.is_file()}
        assert qbench("leaderboard", "--collect").code == 0
        assert {path: path.read_bytes() for path in (workplace / "results").rglob("*") if path.is_file()} == before

    def test_a_damaged_figure_is_named(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        raw = json.loads(make_pending(workplace))
        folder = workplace / "store" / "artefacts" / "score" / raw["results"]["micro-distance"]
        (folder / "score.json").write_text("{}")
        answer = qbench("leaderboard", "--collect")
        assert answer.code == 1
        assert answer.err.splitlines() == [
            f"micro.round.W4A8.s0: the artefact score {folder.name[:12]} in the store is damaged; "
            "the next run computes it again"
        ]

    def test_a_store_that_is_not_there_is_a_typo(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        answer = qbench("leaderboard", "--collect", "--store", "stroe")
        assert (answer.code, answer.out, answer.err) == (1, "", "qbench: --store stroe: no such folder\n")
        assert not (workplace / "stroe").exists()

    def test_a_store_without_it_is_wrong_usage(self, qbench: Qbench, finished_suite: Path):
        answer = qbench("leaderboard", "--store", "store")
        assert answer.code == 2
        assert "--collect" in answer.err


class TestPublished:
    def test_a_folder_that_is_not_there_is_a_typo(self, qbench: Qbench, finished_suite: Path):
        answer = qbench("leaderboard", "--published", "nowhere")
        assert (answer.code, answer.out, answer.err) == (1, "", "qbench: --published nowhere: no such folder\n")

    def test_a_folder_without_what_a_suite_names_is_a_problem(
        self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path
    ):
        qbench("run", micro_suite(published=["my-paper"]))
        (workplace / "published").mkdir()
        answer = qbench("leaderboard", "--published", "published")
        assert answer.code == 1
        assert len(answer.err.splitlines()) == 1
        assert "my-paper" in answer.err


class TestProblems:
    def test_each_is_one_line_that_names_no_folder_of_this_machine(
        self, qbench: Qbench, finished_suite: Path, workplace: Path
    ):
        records = workplace / "results" / "micro" / "records"
        (records / "a.json").write_text("{}")
        (records / "b.json").write_text((records / ROUND).read_text())
        (records / "c.json").write_text((records / ROUND).read_text().replace('"value": ', '"value": NaN, "was": ', 1))
        (workplace / "results" / "micro" / "media" / "strips" / "micro.round.W4A8.s0.png").write_bytes(b"no picture")
        answer = qbench("leaderboard", workplace / "results", "--json")
        assert answer.code == 1
        problems = answer.json["problems"]
        places = [problem.partition(":")[0] for problem in problems]
        assert places == [
            "micro/records/a.json",
            "micro/records/b.json",
            "micro/records/c.json",
            "micro/media/strips/micro.round.W4A8.s0.png",
        ]
        assert not [problem for problem in problems if str(workplace) in problem]
        for name in ("README.md", "index.html", "micro/table.md"):
            assert str(workplace) not in (workplace / "results" / name).read_text(encoding="utf-8"), name

    @pytest.mark.parametrize("options", [(), ("--collect",)])
    def test_a_missing_folder_is_named(self, qbench: Qbench, workplace: Path, options: tuple[str, ...]):
        answer = qbench("leaderboard", "nowhere", *options)
        assert answer.code == 1
        assert answer.err == "qbench: nowhere: no such folder; name the one that `qbench run` writes to\n"
