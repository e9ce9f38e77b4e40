"""The tables of a suite as CSV: one row for each cell, in the order of the suite."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from qbench.records import LatencyInfo, Record
from qbench.results.costs import SIMULATED, calibration_seconds, device_text, peak_memory_mb, sampling_seconds

KEYS = ("workload", "method", "label", "bits", "boundary_bits", "seed")
PROFILE = ("status", "samples", "size_mb", "coverage_macs", "coverage_parameters", "left_out", "reason")
CURVE = ("step_index", "timestep", "teacher_forced", "free_running")
COSTS = ("peak_memory_mb", "device", "threads", "calibration_seconds", "sampling_seconds")
LATENCY = (
    "call_batch",
    "full_precision_call_seconds",
    "quantized_call_seconds",
    "quantized_kind",
    "int8_call_seconds",
    "int8_difference",
    "int8_macs",
    "resident_mb",
    "call_peak_mb",
    "dtype",
    "compiled",
    "instructions",
)
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
    """Return ``costs.csv``: what each cell cost, and what a call of its denoiser costs where that was measured.

    Columns: the keys, seconds for each kind of stage, ``peak_memory_mb``, ``device``, ``threads``,
    ``calibration_seconds``, ``sampling_seconds``, and those of ``LATENCY``.
    """
    kinds = sorted({cost.stage for record in records for cost in record.stages})
    rows = []
    for record in records:
        row = _keys(record)
        for kind in kinds:
            seconds = [cost.seconds for cost in record.stages if cost.stage == kind]
            row.append(round(sum(seconds), 3) if seconds else None)
        row += [peak_memory_mb(record), device_text(record) or None, record.environment.get("threads")]
        row += [
            None if each is None else round(each, 3) for each in (calibration_seconds(record), sampling_seconds(record))
        ]
        rows.append(row + (_latency(record.latency) if record.latency else [None] * len(LATENCY)))
    return _csv([*KEYS, *(f"{kind}_seconds" for kind in kinds), *COSTS, *LATENCY], rows)


def _latency(latency: LatencyInfo) -> list[Any]:
    quantized, integer = latency.quantized, latency.int8
    return [
        latency.batch,
        latency.full_precision.seconds,
        quantized.seconds if quantized else None,
        SIMULATED if quantized else None,
        integer.seconds if integer else None,
        integer.difference if integer else None,
        integer.macs if integer else None,
        latency.resident_mb,
        (quantized or latency.full_precision).peak_mb,
        latency.dtype,
        latency.compiled,
        latency.instructions,
    ]


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
