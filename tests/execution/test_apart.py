"""The process apart: whenever it dies, one stage fails at most, and the next has a process again."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qbench.execution.apart import Apart
from qbench.execution.outcome import Computed, Failed
from qbench.plan import make_plan
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store
from qbench.suite import load_suite


@pytest.fixture
def store(workplace: Path) -> Store:
    return Store(workplace / "store")


@pytest.fixture
def apart(store: Store) -> Iterator[Apart]:
    made = Apart(store, Runtime("cpu", stage_limit=60))
    yield made
    made.end()


@pytest.fixture
def stages(micro_suite: Callable[..., Path]) -> list[Stage]:
    """Stages that need nothing."""
    plan = make_plan(load_suite(micro_suite(bits=["W4A32", "W3A32", "W2A32"])))
    return [stage for stage in plan.stages.values() if stage.kind == "weights"]


def attempt(apart: Apart, stage: Stage) -> Any:
    return apart.attempt(stage, lambda: None, lambda amount: None, lambda sentence: None)


def test_if_it_dies_between_two_stages_the_next_has_another(apart: Apart, stages: list[Stage]) -> None:
    assert isinstance(attempt(apart, stages[0]), Computed)
    first = apart._process
    first.kill()
    first.join()
    assert isinstance(attempt(apart, stages[1]), Computed)
    assert apart._process.pid != first.pid


def test_if_it_dies_while_it_is_told_the_stage_fails_and_the_next_has_another(
    apart: Apart, stages: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(attempt(apart, stages[0]), Computed)
    process = apart._process
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with monkeypatch.context() as context:
        context.setattr(process, "is_alive", lambda: True)  # as it was when that was asked
        outcome = attempt(apart, stages[1])
    assert outcome == Failed("its process died (signal 9): a crash in native code or a lack of memory")
    assert isinstance(attempt(apart, stages[1]), Computed)


@pytest.mark.parametrize("length", [0, 3, 20_000])
def test_half_a_message_is_a_death(apart: Apart, stages: list[Stage], length: int) -> None:
    assert isinstance(attempt(apart, stages[0]), Computed)
    ours, theirs = os.pipe()
    os.write(theirs, (100_000).to_bytes(4, "big") + b"x" * length)
    os.close(theirs)
    apart._process.kill()
    os.dup2(ours, apart._line.fileno())  # what is heard next
    os.close(ours)
    assert apart._hear(apart._line) is None


def test_one_that_cannot_be_started_is_told_as_what_it_is(
    apart: Apart, stages: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as what goes wrong when it is ended; and nothing of it stays open."""

    def refuse(self: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    with suppress(FileNotFoundError):
        before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as context:
        context.setattr("multiprocessing.context.SpawnProcess.start", refuse)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            attempt(apart, stages[0])
        apart.end()
    with suppress(FileNotFoundError):
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # multiprocessing's tracker
    assert isinstance(attempt(apart, stages[0]), Computed)
