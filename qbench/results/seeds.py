"""How much a row over seeds differs from full precision: each seed is compared with full precision of that seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qbench.records import Record
from qbench.results.comparing import Difference, mean_difference


def full_precision_by_seed(records: Iterable[Record], workload: str) -> dict[int, Record]:
    """Return the full-precision cell of each seed of a workload."""
    return {record.seed: record for record in records if record.workload == workload and record.is_full_precision}


def change_over_seeds(cells: Sequence[Record], full: Mapping[int, Record], metric: str) -> Difference | None:
    """Return the mean difference of a row from full precision, over the seeds at which the row has one.

    Args:
        cells: of the row, one for each seed.
        full: the full-precision cell of each seed.
        metric: id of the figure.

    Returns:
        The difference; None if there is none at any seed, or full precision lacks the figure at one of them.
    """
    own = [cell for cell in cells if _has(cell, metric) and cell.figures[metric].delta is not None]
    if any(cell.seed not in full or not _has(full[cell.seed], metric) for cell in own):
        return None
    return mean_difference([(cell, full[cell.seed]) for cell in own], metric)


def interval_of(change: Difference | None) -> tuple[float, float] | None:
    """Return the ends of a difference's interval; None if there is no difference, or no interval."""
    return None if change is None or change.low is None or change.high is None else (change.low, change.high)


def _has(record: Record, metric: str) -> bool:
    return metric in record.figures and metric not in record.failures
