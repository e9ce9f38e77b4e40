"""Rows over seeds are compared with the full precision of each seed, where there is one."""

from collections.abc import Callable
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.seeds import change_over_seeds, full_precision_by_seed, interval_of

MakeRecord = Callable[..., Record]
GROUPS = 20


@pytest.fixture
def cell(make_record: MakeRecord) -> MakeRecord:
    """Return a function that makes a cell whose figure is the same without any images."""

    def make(label: str, value: float, **changes: Any) -> Record:
        figure = {"value": value, "samples": 12, "without": [value] * GROUPS}
        figure |= {} if label == "full-precision" else {"delta": value - 1}
        return make_record(label, **({"figures": {"distance": figure}} | changes))

    return make


def test_each_seed_is_compared_with_its_own_full_precision(cell: MakeRecord) -> None:
    full = [cell("full-precision", 1.0 + seed, seed=seed) for seed in (0, 1)]
    other = cell("full-precision", 9.0, workload="other")
    row = [cell("a", 2.0, seed=0), cell("a", 5.0, seed=1)]
    found = change_over_seeds(row, full_precision_by_seed([other, *row, *full], "micro"), "distance")
    assert found is not None
    assert (found.delta, found.seeds) == (2.0, 2)
    assert interval_of(found) == pytest.approx((2.0, 2.0))


def test_a_seed_without_the_figure_does_not_count(cell: MakeRecord) -> None:
    full = {seed: cell("full-precision", 1.0, seed=seed) for seed in (0, 1, 2)}
    lost = cell("a", 9.0, seed=1, status="failed", reason="no", failures={"distance": "no"})
    row = [cell("a", 2.0, seed=0), lost, cell("a", 2.0, seed=2, status="pending", figures={})]
    found = change_over_seeds(row, full, "distance")
    assert found is not None
    assert (found.delta, found.seeds) == (1.0, 1)


def test_without_full_precision_nothing_is_known(cell: MakeRecord) -> None:
    row = [cell("a", 2.0, seed=seed) for seed in (0, 1)]
    assert change_over_seeds(row, {0: cell("full-precision", 1.0)}, "distance") is None
    empty = {seed: cell("full-precision", 1.0, seed=seed, figures={}) for seed in (0, 1)}
    assert change_over_seeds(row, empty, "distance") is None
    assert change_over_seeds([], {}, "distance") is None
    assert interval_of(None) is None
