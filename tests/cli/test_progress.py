"""What a run says of the time that is left, within a stage and between stages."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from qbench.cli import progress as module
from qbench.cli.progress import duration, progress
from qbench.execution.listener import Listener
from qbench.plan import Plan, make_plan
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.suite import load_suite

Put = Callable[..., None]


@dataclass
class Clock:
    now: float = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, as the display knows it."""
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.fixture
def stages(micro_suite: Callable[..., Path]) -> dict[str, list[Stage]]:
    """The stages of a plan, by their kinds."""
    plan: Plan = make_plan(load_suite(micro_suite()))
    found: dict[str, list[Stage]] = {}
    for stage in plan.stages.values():
        found.setdefault(stage.kind, []).append(stage)
    return found


@pytest.fixture
def store(workplace: Path) -> Store:
    return Store(workplace / "store")


@contextmanager
def at_work(store: Store, *planned: Stage, processes: int = 1) -> Iterator[Listener]:
    """A display that has heard of some stages, the first of which has been started."""
    with progress(store, processes) as listener:
        listener.planned({stage.digest: stage for stage in planned}, len(planned))
        listener.started(planned[0])
        yield listener


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said since the last look, but for the first line of all."""
    return [line for line in capsys.readouterr().err.splitlines() if "stages to compute" not in line]


class TestAtTheStart:
    def test_it_says_what_all_of_it_will_take(
        self, stages, store: Store, capsys: pytest.CaptureFixture[str], put_artefact: Put
    ):
        first, *rest = stages["sample"]
        put_artefact(store, first, seconds=100.0)
        with at_work(store, *rest):
            assert capsys.readouterr().err == f"{len(rest)} of {len(rest)} stages to compute, about 3 min left\n"

    def test_of_an_empty_store_nothing_is_known(self, stages, store: Store, capsys: pytest.CaptureFixture[str]):
        with at_work(store, *stages["sample"]):
            assert capsys.readouterr().err.endswith("stages to compute\n")


class TestWithinAStage:
    def test_its_own_pace_tells_as_soon_as_it_has_come_some_way(
        self, stages, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str], put_artefact: Put
    ):
        """Whatever others of its kind took."""
        (stage, other, *_) = stages["sample"]
        put_artefact(store, other, seconds=9999.0)
        with at_work(store, stage) as listener:
            for seconds, share, left in (
                (60, 0.1, "9 min"),
                (40, 0.15, "5 min"),
                (100, 0.25, "3 min"),
                (200, 0.5, "0 s"),
            ):
                clock.now += seconds
                listener.advanced(stage, share * stage.work)
                assert said(capsys)[-1].endswith(f"%, about {left} left of it")

    def test_before_that_it_is_judged_by_earlier_ones(
        self, stages, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str], put_artefact: Put
    ):
        (stage, other, *_) = stages["sample"]
        put_artefact(store, other, seconds=100.0)
        with at_work(store, stage) as listener:
            for seconds, left in ((40, "60 s"), (35, "25 s"), (80, "0 s")):
                clock.now += seconds
                listener.advanced(stage, 0.01 * stage.work)
                (line,) = said(capsys)
                assert line.endswith(f"%, about {left} left of it")

    def test_of_the_first_of_its_kind_nothing_is_known_at_first(
        self, stages, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
    ):
        (stage, *_) = stages["weights"]
        with at_work(store, stage) as listener:
            clock.now += 40
            listener.advanced(stage, 0.04 * stage.work)
            assert said(capsys) == [f"weights: {stage.title}: 4%"]
            clock.now += 40
            listener.advanced(stage, 0.01 * stage.work)  # 5 % in 80 s
            assert said(capsys) == [f"weights: {stage.title}: 5%, about 25 min left of it"]

    def test_a_log_is_silent_for_half_a_minute(
        self, stages, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
    ):
        (stage, *_) = stages["sample"]
        with at_work(store, stage) as listener:
            spoken = []
            for _ in range(100):
                clock.now += 1
                listener.advanced(stage, 0.01 * stage.work)
                spoken.append(len(said(capsys)))
        assert [index + 1 for index, lines in enumerate(spoken) if lines] == [30, 60, 90]

    def test_more_than_all_of_it_is_all_of_it(
        self, stages, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
    ):
        (stage, *_) = stages["sample"]
        with at_work(store, stage) as listener:
            clock.now += 50
            listener.advanced(stage, 1.7 * stage.work)
        assert said(capsys) == [f"sample: {stage.title}: 100%, about 0 s left of it"]

    def test_the_next_stage_starts_from_nothing(
        self, stages, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
    ):
        first, second, *_ = stages["sample"]
        with at_work(store, first, second) as listener:
            clock.now += 1000
            listener.advanced(first, first.work)
            listener.finished(first, 1000.0)
            listener.started(second)
            said(capsys)
            clock.now += 50
            listener.advanced(second, 0.5 * second.work)
        assert said(capsys) == [f"sample: {second.title}: 50%, about 50 s left of it"]


class TestOfTheRun:
    def test_it_is_what_is_left_of_the_stage_at_work_and_all_of_the_others(
        self, stages, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, put_artefact: Put
    ):
        shown = on_a_terminal(monkeypatch)
        earlier, at_hand, next_one = stages["sample"]
        put_artefact(store, earlier, seconds=100.0)
        with at_work(store, at_hand, next_one) as listener:
            assert shown(listener) == "about 3 min left"  # 100 s each, for what it knows
            for seconds, share, left in ((10, 0.01, "3 min"), (30, 0.19, "4 min"), (40, 0.6, "2 min")):
                clock.now += seconds
                listener.advanced(at_hand, share * at_hand.work)
                assert shown(listener) == f"about {left} left"
            listener.finished(at_hand, 60.0)
            assert shown(listener) == "about 60 s left"  # of two the faster

    def test_several_processes_share_it(
        self, stages, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, put_artefact: Put
    ):
        shown = on_a_terminal(monkeypatch)
        earlier, at_hand, next_one = stages["sample"]
        put_artefact(store, earlier, seconds=40.0)
        with at_work(store, at_hand, next_one, processes=2) as listener:
            clock.now += 20
            listener.advanced(at_hand, 0.5 * at_hand.work)
            assert shown(listener) == "about 30 s left"  # 20 and 40

    def test_what_is_not_known_makes_it_more_than_that(
        self, stages, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, put_artefact: Put
    ):
        shown = on_a_terminal(monkeypatch)
        sample, weights = stages["sample"][0], stages["weights"][0]
        with at_work(store, sample, weights) as listener:
            assert shown(listener) == ""
            clock.now += 30
            listener.advanced(sample, 0.5 * sample.work)
            assert shown(listener) == "more than 30 s left"
            listener.finished(sample, 60.0)
            assert shown(listener) == ""
            listener.started(weights)
            clock.now += 30
            listener.advanced(weights, 0.25 * weights.work)
            assert shown(listener) == "about 90 s left"

    def test_the_log_tells_it_behind_each_stage_but_the_last(
        self, stages, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
    ):
        first, second, *_ = stages["sample"]
        with at_work(store, first, second) as listener:
            listener.finished(first, 60.0)
            listener.started(second)
            listener.finished(second, 60.0)
        assert said(capsys) == [
            f"[1/2] sample: {first.title}: 60.0 s, about 60 s left",
            f"[2/2] sample: {second.title}: 60.0 s",
        ]


class Terminal(io.StringIO):
    """A standard error that is one."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Listener], str]:
    """Let standard error be a terminal; return a function that gives what a display says there of the time left."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")

    def shown(listener: Listener) -> str:
        listener._bars.refresh()  # type: ignore[attr-defined] (nothing else draws at a known moment)
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
        last = [line for line in drawn if line.startswith("stages ")][-1]
        return re.split(r"\d:\d\d:\d\d", last)[-1].strip()  # behind the time that has passed

    return shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (98.4, "98 s"), (99, "2 min"), (720, "12 min"), (5399, "90 min"), (5400, "1.5 h"), (36000, "10.0 h")],
)
def test_durations_are_said_as_a_person_says_them(seconds: float, words: str):
    assert duration(seconds) == words
