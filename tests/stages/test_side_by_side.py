import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any

import pytest
import torch

from qbench.quant.layers import Clock
from qbench.stages.side_by_side import Stopped, side_by_side

CPU = torch.device("cpu")
BATCHES = [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]
GoOn = Callable[[], None]


@pytest.fixture(autouse=True)
def _four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_every_batch_is_run_once() -> None:
    seen: list[range] = []
    side_by_side(CPU, BATCHES, lambda batch, go_on: seen.append(batch))
    assert sorted(seen, key=lambda batch: batch.start) == BATCHES


def test_batches_run_at_the_same_time_and_share_the_threads() -> None:
    meeting = threading.Barrier(2, timeout=20)
    threads: list[int] = []

    def run(batch: range, go_on: GoOn) -> None:
        meeting.wait()
        threads.append(torch.get_num_threads())

    side_by_side(CPU, BATCHES[:2], run)
    assert threads == [2, 2]
    assert torch.get_num_threads() == 4


def test_elsewhere_one_follows_the_other_in_this_thread() -> None:
    seen: list[tuple[range, int]] = []
    side_by_side(torch.device("meta"), BATCHES, lambda batch, go_on: seen.append((batch, threading.get_ident())))
    assert seen == [(batch, threading.get_ident()) for batch in BATCHES]


def test_the_first_failure_in_order_is_told_whichever_comes_first() -> None:
    later_failed = threading.Event()

    def run(batch: range, go_on: GoOn) -> None:
        if batch.start == 3:
            later_failed.set()
            raise ValueError("second")
        if batch.start == 0:
            assert later_failed.wait(20)
            go_on()  # an earlier batch is still needed: it decides what is told
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        side_by_side(CPU, BATCHES, run)


def test_batches_behind_a_failure_are_given_up() -> None:
    stopped: list[int] = []

    def run(batch: range, go_on: GoOn) -> None:
        if batch.start == 0:
            raise ValueError("broken")
        try:
            for _ in range(2000):
                time.sleep(0.01)
                go_on()
        except Stopped:
            stopped.append(batch.start)
            raise

    begun = time.perf_counter()
    with pytest.raises(ValueError, match="broken"):
        side_by_side(CPU, BATCHES, run)
    assert time.perf_counter() - begun < 10
    assert set(stopped) <= {3, 6, 9}


def test_an_interruption_ends_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    presses = iter(range(3))

    def interrupted(*words: Any, **named: Any) -> Any:
        if next(presses, None) is not None:
            raise KeyboardInterrupt
        return wait(*words, **named)

    ended: list[int] = []

    def run(batch: range, go_on: GoOn) -> None:
        try:
            while True:
                time.sleep(0.01)
                go_on()
        finally:
            ended.append(batch.start)

    monkeypatch.setattr("qbench.stages.side_by_side.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(CPU, BATCHES, run)
    assert len(ended) <= len(BATCHES)
    assert torch.get_num_threads() == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_each_thread_has_its_own_step() -> None:
    clock = Clock()
    meeting = threading.Barrier(2, timeout=20)
    seen: dict[int, int] = {}

    def run(batch: range, go_on: GoOn) -> None:
        clock.steps = torch.tensor(batch.start)
        meeting.wait()
        seen[batch.start] = int(clock.steps)

    side_by_side(CPU, BATCHES[:2], run)
    assert seen == {0: 0, 3: 3}
    assert clock.steps is None


INTERRUPTED_TWICE = """
import os, signal, threading, time, torch
from qbench.stages.side_by_side import side_by_side

torch.set_num_threads(2)
x = torch.ones(5000, 5000)
computing = threading.Barrier(3)

def run(batch, go_on):
    computing.wait()
    while True:
        x @ x
        go_on()

def press_twice():
    computing.wait()
    for _ in range(2):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press_twice, daemon=True).start()
side_by_side(torch.device("cpu"), [range(1), range(1, 2), range(2, 3)], run)
"""


def test_ctrl_c_pressed_twice_ends_as_pressed_once() -> None:
    """Without waiting for what still computes, Python aborts at its end: in two of three runs of this test."""
    words = [sys.executable, "-c", INTERRUPTED_TWICE]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert "terminate called" not in done.stderr
    assert done.returncode == -signal.SIGINT, done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
