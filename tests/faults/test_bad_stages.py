"""Stages that raise, want more memory than there is, give what is no number, or never end: only their cells fail."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REASONS = {
    "raises": "weights: RuntimeError: no luck",
    "exits": "weights: SystemExit: 7",
    "no-memory": "weights: MemoryError: cannot allocate 1 TB",
    "no-device-memory": "weights: calibrating no-device-memory on micro: cpu has too little memory for a batch",
    "nan-output": "sample: ",
    "nan-grid": "weights: ",
}
"""What the record says of a method that fails, whatever the executor."""
LIMITED = {
    "hangs": "weights: not done within 4 s, the limit of --stage-limit, and ended: raise it if the stage needs longer",
    "hangs-deaf": "weights: not done within 4 s, the limit of --stage-limit, and ended: raise it",
    "dies": "weights: its process died (exit code 3): a crash in native code or a lack of memory",
}
"""The same with a limit, where stages are computed in a process apart."""
LIMIT = ("--stage-limit", "4s")
"""Long beside what a stage of the fake plugins takes, on a busy machine too."""


def records(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (folder / "results/micro/records").glob("*.json")]
    return {record["label"]: record for record in found}


@pytest.fixture
def suite(micro_suite: Callable[..., Path], faulty: None) -> Callable[..., Path]:
    def write(*methods: str) -> Path:
        return micro_suite(methods=[*methods, "round"], bits=["W4A32"], metrics=["mse-to-fp"])

    return write


def assert_only(ended: Any, folder: Path, reasons: dict[str, str], tally: Any) -> None:
    """Cells that fail have their reason, the others are complete, and the command says that not all is well."""
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    found = records(folder)
    for method, reason in reasons.items():
        with tally.of(f"a method that fails: {method}"):
            assert found[method]["status"] == "failed"
            assert found[method]["reason"].startswith(reason), found[method]["reason"]
            assert "| failed" in (folder / "results/micro/table.md").read_text()
    assert [found[each]["status"] for each in ("full-precision", "round")] == ["complete"] * 2


def test_only_their_cells_fail(launch: Callable[..., Any], suite: Callable[..., Path], workplace: Path, tally: Any):
    folder = workplace / "here"
    ended = launch(folder, "run", suite(*REASONS)).wait()
    assert_only(ended, folder, REASONS, tally)


@pytest.mark.slow
def test_a_stage_beyond_its_limit_is_ended_and_the_others_finish(
    launch: Callable[..., Any], suite: Callable[..., Path], workplace: Path, tally: Any
):
    folder = workplace / "here"
    begun = time.monotonic()
    ended = launch(folder, "run", suite("raises", *LIMITED), *LIMIT).wait()
    assert time.monotonic() - begun < 120
    assert_only(ended, folder, LIMITED | {"raises": REASONS["raises"]}, tally)
    (told,) = [line for line in ended.err.splitlines() if line.startswith("failed: hangs W4A32: ")]
    where = Path(told.partition("(traceback in ")[2].rstrip(")"))
    assert "quantize_weights" in where.read_text()
    assert list((folder / "store" / "pending").iterdir()) == []
    assert {path.name.partition("-")[0] for path in (folder / "store" / "failures").iterdir()} == {"weights"}


@pytest.mark.slow
def test_a_worker_of_ray_is_ended_at_its_limit_too(
    launch: Callable[..., Any], suite: Callable[..., Path], workplace: Path, tally: Any
):
    pytest.importorskip("ray", reason="the executor ray needs Ray")
    folder = workplace / "here"
    hanging = {name: reason for name, reason in LIMITED.items() if name.startswith("hangs")}
    crew = ("--executor", "ray", "--processes", "2", "--threads", "1")
    ended = launch(folder, "run", suite("raises", *hanging), *LIMIT, *crew).wait()
    assert_only(ended, folder, hanging | {"raises": REASONS["raises"]}, tally)
    assert list((folder / "store" / "pending").iterdir()) == []


@pytest.mark.slow
def test_with_a_limit_that_nothing_exceeds_all_is_as_without(
    qbench: Callable[..., Any], finished_suite: Path, uninterrupted: Path, workplace: Path
):
    ended = qbench("run", finished_suite, "--store", "fresh", "--results", "fresh", "--stage-limit", "10m")
    assert ended.code == 0, ended.err
    for name in ("table.csv", "table.md", "curves.csv", "protocols.json", "media/micro.s0.png"):
        assert (workplace / "fresh/micro" / name).read_bytes() == (uninterrupted / "results/micro" / name).read_bytes()
    assert list((workplace / "fresh/failures").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_process_apart_too(start: Callable[..., Any], suite: Callable[..., Path], workplace: Path):
    running = start("run", suite(), "--stage-limit", "10m", pause="weights")
    running.reach_pause()
    assert running.interrupt() == 130
    running.leave_nothing_running()
    assert list((workplace / "store" / "pending").iterdir()) == []
    assert "Traceback" not in running.err


def test_the_next_run_tries_again(start: Callable[..., Any], suite: Callable[..., Path], workplace: Path):
    """And what was in time is not computed once more."""
    late = start("run", suite(), *LIMIT, pause="weights")
    assert late.wait() == 1
    assert "not done within 4 s" in late.err
    (workplace / "process-0.marker").unlink()
    again = start("run", suite(), *LIMIT)
    assert again.wait() == 0
    assert "sample: micro, full precision" not in again.err


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "5 apples", "nan", "inf", "1e300h", "s", "2hh", "9" * 400])
def test_a_limit_that_is_none(qbench: Callable[..., Any], suite: Callable[..., Path], text: str):
    answer = qbench("run", suite(), f"--stage-limit={text}")
    assert answer.code == 2
    assert "write a duration such as 90s, 30m or 2h" in " ".join(answer.err.replace("│", " ").split())
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_a_duration(text: str, expected: float):
    from qbench.cli.options import seconds

    assert seconds("--stage-limit", text) == expected
