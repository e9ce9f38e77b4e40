"""One cell as a page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from qbench.cell import cell_id
from qbench.records import CurveInfo, Figure, Record
from qbench.results.costs import calibration_seconds, seconds_text
from qbench.results.costs_table import cost_facts
from qbench.results.page.command import command
from qbench.results.page.pool import Pool
from qbench.results.wording import difference_text, figure_text, is_about_quality, is_conclusive, label_text

CURVE_POINTS = 120
"""Of a curve, at most about so many."""


def cell_data(record: Record, metrics: Sequence[str], pool: Pool, digests: Pool) -> dict[str, Any]:
    """Return a cell: what its row in the table needs, and everything that its own view shows.

    Args:
        record: of the cell.
        metrics: ids of the suite's columns; the cell's figures come in this order.
        pool: where descriptions go that cells share.
        digests: where digests go.
    """
    parts = record.description
    return {
        "id": cell_id(record.key),
        "workload": record.workload,
        "method": record.method,
        "label": record.label,
        "name": label_text(record),
        "full": record.is_full_precision,
        "bits": record.bits,
        "boundary": record.boundary_bits,
        "seed": record.seed,
        "samples": record.samples,
        "status": record.status,
        "reason": record.reason,
        "failures": list(record.failures.items()),
        "figures": [figure_data(record, name) for name in metrics],
        "profile": _profile(record, pool),
        "calibration": cost_data([record]),
        "costs": cost_facts(record),
        "curve": None if record.curve is None else _curve(record.curve, pool),
        "stages": [
            [cost.stage, rounded(cost.seconds), rounded(cost.peak_memory_mb), digests.place(cost.digest)]
            for cost in record.stages
        ],
        "results": [[name, digests.place(each)] for name, each in record.results.items()],
        "digest": digests.place(record.digest),
        "baseline": digests.place(record.baseline),
        "description": [[key, pool.place_flat(value)] for key, value in parts.items() if value != {}],
        "environment": pool.place_flat(record.environment),
        "git": None if record.git is None else pool.place_flat(record.git),
        "standin": None
        if record.stands_in_for is None
        else pool.place([record.stands_in_for.workload, list(record.stands_in_for.metrics.items())]),
        "command": command(record),
        "version": record.schema_version,
    }


def figure_data(record: Record, name: str) -> Any:
    """Return a figure as [value, text, difference text, difference, low, high, conclusive]; only a text without one.

    The difference is from full precision; of figures against the full-precision images only the interval is told.
    """
    figure = record.figures.get(name)
    if name not in record.metrics and name not in record.failures and figure is None:
        return None
    text, _ = figure_text(figure, name in record.failures, record.status == "pending")
    if figure is None or name in record.failures:
        return text
    return [rounded(figure.value), text, _difference(record, name, figure), *_numbers(figure), is_conclusive(figure)]


def _difference(record: Record, name: str, figure: Figure) -> str:
    told = difference_text(figure)
    info = record.metrics.get(name)
    return told if info is None or is_about_quality(info) else told.partition(" ")[2]


def _numbers(figure: Figure) -> list[float | None]:
    return [None if each is None else rounded(each) for each in (figure.delta, figure.low, figure.high)]


def cost_data(records: Sequence[Record]) -> tuple[float, str] | None:
    """Return the seconds of calibration, the mean over cells, with their text; None if they are not known."""
    known = [seconds for seconds in map(calibration_seconds, records) if seconds is not None]
    if not known:
        return None
    seconds = sum(known) / len(known)
    return rounded(seconds), seconds_text(seconds)


def rounded(value: float) -> float:
    """Return a number with six significant digits: a page is read, and what lies behind them differs by processor."""
    return float(f"{value:.6g}")


def _profile(record: Record, pool: Pool) -> dict[str, Any] | None:
    profile = record.profile
    if profile is None:
        return None
    return {
        "size": rounded(profile.size_mb),
        "sizeText": f"{profile.size_mb:.2f}",
        "macs": rounded(profile.coverage_macs),
        "macsText": f"{100 * profile.coverage_macs:.1f} %",
        "parametersText": f"{100 * profile.coverage_parameters:.1f} %",
        "left": pool.place(profile.left_out),
    }


def _curve(curve: CurveInfo, pool: Pool) -> dict[str, Any]:
    """Return a curve, thinned: a plot shows no more."""
    steps = len(curve.step_index)
    stride = ceil(steps / CURVE_POINTS)
    kept = sorted({*range(0, steps, stride), steps - 1})
    behind = [*sorted({*range(0, steps, stride)}), steps]
    return {
        "samples": curve.samples,
        "axis": pool.place([kept, [curve.timestep[step] for step in kept], behind]),
        "forced": [_short(curve.teacher_forced[step]) for step in kept],
        "free": [_short(curve.free_running[step]) for step in behind],
    }


def _short(value: float) -> float:
    return float(f"{value:.3g}")
