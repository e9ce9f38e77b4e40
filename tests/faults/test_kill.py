"""``kill -9`` at any moment, then the same command again: what is left is what an uninterrupted run leaves."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

BEFORE_A_STEP = "`kill -9` before a step on a file (artefact, record, picture, table) of a small suite"
AT_RANDOM = "`kill -9` at a random moment of the smoke suite"
KILLS = 50
FROM_A_SHELL = 5
"""Every so many-th run of the smoke suite is started as a shell does, and may be killed while it imports."""


MARKS = (
    "mkdir store/pending/<digest>",
    "open store/pending/<digest>/manifest.json",
    "rename store/pending/<digest> -> store/artefacts/weights/<digest>",
    "-> results/micro/records/micro.round.W4A32.s0.json",
    "-> results/micro/table.csv",
)
"""One step each of beginning an artefact, vouching for it, publishing it, and writing a record and a table."""


def assert_resumable(laboratory: Any, folder: Path) -> None:
    """What a killed command leaves is whole and not taken for a run that goes on; the next command finishes it."""
    laboratory.assert_sound(folder)
    checked = laboratory.run_here(folder, "check")
    done = checked.out.splitlines()[-1].endswith(" 0 failed, 0 missing")
    assert checked.code == (0 if done else 3), checked.out + checked.err
    laboratory.assert_finished(laboratory.run_here(folder), folder)


@pytest.fixture
def small(laboratory: Callable[..., Any], micro_suite: Callable[..., Path]) -> Any:
    return laboratory(micro_suite(bits=["W4A32"], metrics=["mse-to-fp"]))


def steps(laboratory: Any, workplace: Path) -> list[str]:
    """Return the names of all that a run does to files, in order."""
    from faulty_process import Fault

    folder, trace = workplace / "traced", workplace / "steps"
    laboratory.run(folder, fault=Fault(str(folder), trace=str(trace))).wait()
    return trace.read_text().splitlines()


def kill_at(laboratory: Any, folder: Path, number: int) -> None:
    from faulty_process import Fault

    killed = laboratory.run(folder, fault=Fault(str(folder), kill_at=number))
    assert killed.wait().code == -9
    assert_resumable(laboratory, folder)


def test_before_one_step_of_each_kind(small: Any, workplace: Path, tally: Any) -> None:
    names = steps(small, workplace)
    for mark in MARKS:
        number = next(index for index, name in enumerate(names) if mark in name)
        with tally.of(BEFORE_A_STEP):
            kill_at(small, workplace / f"killed-{number}", number)


@pytest.mark.slow
def test_before_every_step(small: Any, workplace: Path, tally: Any) -> None:
    for number in range(len(steps(small, workplace))):
        folder = workplace / f"killed-{number}"
        with tally.of(BEFORE_A_STEP):
            kill_at(small, folder, number)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_at_random_moments_of_the_smoke_suite(laboratory: Callable[..., Any], workplace: Path, tally: Any) -> None:
    made = laboratory("smoke")
    shell = made.run(workplace / "shell", shell=True).wait()
    made.assert_finished(shell, workplace / "shell")
    random = Random(20)
    number = 0
    while tally.injected[AT_RANDOM] < KILLS:
        number += 1
        from_a_shell = number % FROM_A_SHELL == 0
        folder = workplace / f"killed-{number}"
        running = made.run(folder, shell=from_a_shell)
        time.sleep(random.uniform(0, shell.seconds if from_a_shell else made.seconds))
        if running.kill() == 0:  # it was quicker this time than the one that was measured
            continue
        with tally.of(AT_RANDOM):
            assert_resumable(made, folder)
