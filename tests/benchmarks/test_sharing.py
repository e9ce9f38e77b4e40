"""A table must take much less than its cells would alone: what they have in common is computed once."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.plan import CellPlan, make_plan
from qbench.store import Store
from qbench.suite import find_suite, load_suite

ALONE = "linear-fast", "W4A8"
"""The cell that really runs alone as well, to see that the reckoning holds."""


def run(workplace: Path, store: str, *words: str) -> float:
    """Run table 1 on its stand-in, or a part of it, in a fresh store, and return the seconds."""
    command = [sys.executable, "-m", "qbench", "run", "paper_table1", "--standin", "--store", store, *words]
    begun = time.perf_counter()
    subprocess.run([*command, "--results", f"{store}-results"], cwd=workplace, env=os.environ, check=True)
    return time.perf_counter() - begun


def stage_seconds(store: Store, stages: Iterable[tuple[str, str]]) -> float:
    return sum(store.manifest(kind, digest).seconds for kind, digest in stages)


def alone(cell: CellPlan) -> set[tuple[str, str]]:
    """Return kind and digest of every stage that a cell needs in a fresh store; full precision comes with it."""
    stages = dict(cell.stages)
    return {(stage.kind, digest) for digest, stage in stages.items()}


@pytest.mark.slow
def test_a_table_over_its_cells_alone(
    benchmark: BenchmarkFixture, judged: Callable[..., bool], workplace: Path
) -> None:
    """All cells alone would take a quarter of an hour, so the seconds of the stages that each needs are added up."""
    words = ["--set", "samples=20"] if benchmark.disabled else []
    overrides = {"samples": 20} if benchmark.disabled else {}
    only = ["--only", f"method={ALONE[0]}", "--only", f"bits={ALONE[1]}"]
    run(workplace, "table", *words, *(only if benchmark.disabled else []))
    suite = load_suite(find_suite("paper_table1"), overrides, standin=True)
    suite = suite.only({"method": [ALONE[0]], "bits": [ALONE[1]]}) if benchmark.disabled else suite
    cells = make_plan(suite).cells
    store = Store(workplace / "table")
    table = stage_seconds(store, set().union(*map(alone, cells)))
    apart = [stage_seconds(store, alone(cell)) for cell in cells if cell.cell.method is not None]
    assert judged(table / sum(apart), 0.6, "the stand-in of table 1 over the sum of its quantized cells alone")


@pytest.mark.slow
def test_a_cell_alone_takes_what_is_reckoned(
    benchmark: BenchmarkFixture, judged: Callable[..., bool], workplace: Path
) -> None:
    """Both ways round: what is added up above is what a run of one cell in a fresh store takes."""
    words = ["--set", "samples=20"] if benchmark.disabled else []
    only = ["--only", f"method={ALONE[0]}", "--only", f"bits={ALONE[1]}"]
    run(workplace, "shared", "--only", f"method={ALONE[0]}", *words)
    run(workplace, "alone", *only, *words)
    overrides = {"samples": 20} if benchmark.disabled else {}
    suite = load_suite(find_suite("paper_table1"), overrides, standin=True)
    cell = make_plan(suite.only({"method": [ALONE[0]], "bits": [ALONE[1]]})).cells[-1]
    shared, own = (stage_seconds(Store(workplace / name), alone(cell)) for name in ("shared", "alone"))
    assert judged(max(shared, own) / min(shared, own), 1.5, "stages of a cell in a table over those of the cell alone")
