"""Timing in turn, and the memory of a call."""

import time
from statistics import median

import pytest
import torch

from qbench.stages import timing
from qbench.stages.timing import in_turns, peak_bytes

CPU = torch.device("cpu")


def test_calls_take_turns_and_none_always_comes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    order: list[str] = []
    seconds, rounds = in_turns({name: lambda name=name: order.append(name) for name in "abc"}, CPU)
    assert rounds == timing.FEWEST_ROUNDS
    assert seconds.keys() == {"a", "b", "c"}
    assert "".join(order) == ("cbaabc" * rounds)[: 3 * rounds]


def test_the_median_is_taken(monkeypatch: pytest.MonkeyPatch):
    clock, pauses = [0.0], iter([1.0, 9.0, 2.0, 3.0, 2.5])
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def call() -> None:
        clock[0] += next(pauses)

    assert in_turns({"one": call}, CPU) == ({"one": median([1.0, 9.0, 2.0, 3.0, 2.5])}, 5)


def test_there_are_more_rounds_of_quick_calls_and_an_end_to_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "SECONDS", 60.0)
    assert in_turns({"nothing": lambda: None}, CPU)[1] == timing.MOST_ROUNDS


def test_the_peak_is_what_is_alive_at_once():
    x = torch.ones(1000)

    def call() -> torch.Tensor:
        y = x + 1  # 4,000 bytes
        z = y * 2  # beside it
        del y
        return z + z  # in place of y

    assert peak_bytes(call, CPU) == 8000
