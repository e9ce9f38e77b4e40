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
    """Run table 1 on its stand-in, or a part of it, in a fresh store; return the seconds from start to end."""
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
    """All cells alone would take a quarter of an hour, so one is run and the others are reckoned.

    A cell alone takes the seconds of all stages that it needs, and beside them what the one that is run takes to start
    and to write its results.
    """
    words = ["--set", "samples=20"] if benchmark.disabled else []
    only = ["--only", f"method={ALONE[0]}", "--only", f"bits={ALONE[1]}"]
    together = run(workplace, "table", *words, *(only if benchmark.disabled else []))
    apart = run(workplace, "alone", *words, *only)

    suite = load_suite(find_suite("paper_table1"), {"samples": 20} if benchmark.disabled else {}, standin=True)
    one = suite.only({"method": [ALONE[0]], "bits": [ALONE[1]]})
    cells = make_plan(one if benchmark.disabled else suite).cells
    reckoned, measured = (
        stage_seconds(Store(workplace / name), alone(make_plan(one).cells[-1])) for name in ("table", "alone")
    )
    rest = apart - measured
    assert rest > 0
    assert benchmark.disabled or max(reckoned, measured) / min(reckoned, measured) < 1.5
    separately = sum(stage_seconds(Store(workplace / "table"), alone(cell)) + rest for cell in cells)
    benchmark.extra_info["figure"] = f"{together:.0f} s over {separately:.0f} s"
    assert judged(together / separately, 0.6, f"the stand-in of table 1 over its {len(cells)} cells alone")
