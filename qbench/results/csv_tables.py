"""The tables of a suite as CSV: one row for each cell, in the order of the suite."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from qbench.records import Record
from qbench.results.costs import device_text

KEYS = ("workload", "method", "label", "bits", "boundary_bits", "seed")
PROFILE = ("status", "samples", "size_mb", "coverage_macs", "coverage_parameters", "left_out", "reason")
CURVE = ("step_index", "timestep", "teacher_forced", "free_running")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes a text for that begins with it."""


def figures_csv(records: Sequence[Record], metrics: Iterable[str]) -> str:
    """Return ``table.csv``, which holds nothing that varies from run to run.

    Columns: the keys, ``status``, ``samples``, ``size_mb``, ``coverage_macs``, ``coverage_parameters``, ``left_out``
    (layers, separated by spaces), ``reason`` of a failure, then for each metric its id and ``<id>_delta``,
    ``<id>_low``, ``<id>_high`` for the difference from full precision.
    """
    names = list(metrics)
    header = [*KEYS, *PROFILE]
    for name in names:
        header += [name, f"{name}_delta", f"{name}_low", f"{name}_high"]
    rows = []
    for record in records:
        profile = record.profile
        row = [*_keys(record), record.status, record.samples]
        row += [profile.size_mb, profile.coverage_macs, profile.coverage_parameters] if profile else [None] * 3
        row += [" ".join(profile.left_out) if profile else None, record.reason]
        for name in names:
            figure = record.figures.get(name)
            row.append("failed" if name in record.failures else figure.value if figure else None)
            row += [figure.delta, figure.low, figure.high] if figure else [None] * 3
        rows.append(row)
    return _csv(header, rows)


def curves_csv(records: Sequence[Record]) -> str:
    """Return ``curves.csv``: one row for each cell and step, and one more for what is behind the last step.

    Columns: the keys, ``step_index``, ``timestep``, ``teacher_forced``, ``free_running``; behind the last step there is
    only the error of x_0, ``free_running``.
    """
    rows = []
    for record in records:
        curve = record.curve
        if curve is None:
            continue
        keys = _keys(record)
        steps = zip(curve.step_index, curve.timestep, curve.teacher_forced, curve.free_running, strict=False)
        rows += [[*keys, *step] for step in steps]
        rows.append([*keys, len(curve.step_index), None, None, curve.free_running[-1]])
    return _csv([*KEYS, *CURVE], rows)


def costs_csv(records: Sequence[Record]) -> str:
    """Return ``costs.csv``: the keys, seconds for each kind of stage, peak memory, device, threads."""
    kinds = sorted({cost.stage for record in records for cost in record.stages})
    rows = []
    for record in records:
        row = _keys(record)
        for kind in kinds:
            seconds = [cost.seconds for cost in record.stages if cost.stage == kind]
            row.append(round(sum(seconds), 3) if seconds else None)
        row.append(max((cost.peak_memory_mb for cost in record.stages), default=None))
        row += [device_text(record) or None, record.environment.get("threads")]
        rows.append(row)
    return _csv([*KEYS, *(f"{kind}_seconds" for kind in kinds), "peak_memory_mb", "device", "threads"], rows)


def _keys(record: Record) -> list[Any]:
    return [record.workload, record.method, record.label, record.bits, record.boundary_bits, record.seed]


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in (header, *rows))
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return what stands in a cell: a text in one line that is no formula to a spreadsheet.

    Of a number six significant digits: what lies behind them differs between processors.
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, str):
        return value
    text = CONTROL.sub(" ", value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
