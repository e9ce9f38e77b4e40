"""A process that runs a suite again and again holds no more after the twentieth time than after the fifth."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

MANY_RUNS = Path(__file__).parent / "many_runs.py"
WARM_UP = 5
"""Runs until everything is imported, every cache is filled and the allocator has found its size."""


def soak(suite: Path | str, runs: int, folder: Path) -> list[dict[str, int]]:
    temporary = folder / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, str(MANY_RUNS), str(suite), str(runs)],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    held = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(held) == runs
    print("\n".join(map(json.dumps, held)))
    return held


def slope(values: Sequence[int]) -> float:
    """Growth for each run, by least squares."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((run - middle) ** 2 for run in range(len(values)))
    return sum((run - middle) * (value - mean) for run, value in enumerate(values)) / spread


def check(held: Sequence[dict[str, int]], kilobytes: float, objects: float) -> None:
    after = {key: [each[key] for each in held[WARM_UP:]] for key in held[0]}
    for key in ("files", "threads", "temporary"):
        assert max(after[key]) <= held[WARM_UP - 1][key], (key, held)
    assert slope(after["objects"]) < objects, after["objects"]
    assert slope(after["kilobytes"]) < kilobytes, after["kilobytes"]


def test_a_slope_is_the_growth_of_each_run():
    assert slope([10, 13, 16, 19]) == 3
    assert slope([5, 5, 5]) == 0


def test_the_micro_suite_ten_times(micro_suite: Callable[..., Path], workplace: Path):
    check(soak(micro_suite(), 10, workplace), kilobytes=200, objects=5)


@pytest.mark.slow  # 20 times 10 seconds
def test_the_smoke_suite_twenty_times(workplace: Path):
    check(soak("smoke", 20, workplace), kilobytes=1000, objects=5)
