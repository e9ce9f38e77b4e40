"""Verdicts: what our figures say of published ones, and what they cannot say.

A figure is compared only if it was made the way the published one was, and only behind the gate: the full-precision
row of the same run and seed must lie within the band of what the same source publishes for full precision, in every
metric that both have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from qbench.metrics.confidence import GROUPS, jackknife_interval
from qbench.records import Figure, Record
from qbench.results.agreement import disagreements, measurement, parsed
from qbench.results.published import PublishedFigure, Source

VerdictKind = Literal["reproduced", "better", "worse", "not comparable"]
FRECHET = ("fid", "sfid", "clean-fid")
"""Metrics whose default band is never narrower than ``FRECHET_BAND``."""
FRECHET_BAND = 0.25
RELATIVE_BAND = 0.05


@dataclass(frozen=True)
class Verdict:
    """What our figure says of a published one.

    Attributes:
        figure: the published one.
        record: the cell of ours; None if this run has no such cell.
        measured_metric: id that the measured value stands under: the figure's metric, or what stands in for it.
        measured: our value; None if there is none.
        kind: the verdict.
        reasons: why, one clause each; the first is the main one.
        band: what counts as the same.
    """

    figure: PublishedFigure
    record: Record | None
    measured_metric: str
    measured: float | None
    kind: VerdictKind
    reasons: tuple[str, ...]
    band: float

    @property
    def is_comparable(self) -> bool:
        """Whether the figure was compared at all."""
        return self.kind != "not comparable"


def verdicts(records: Sequence[Record], published: Sequence[PublishedFigure]) -> list[Verdict]:
    """Return a verdict for each published figure and each row of ours that it is about, in the order of ``published``.

    A figure whose workload this run does not have has none; one whose workload it has, but not its cell, is not
    comparable. Every seed and every label of a method is a row of its own.

    Args:
        records: of one suite, full precision included.
        published: what they are compared with.
    """
    run = _Run(records, published)
    return [verdict for figure in published if figure.workload in run.workloads for verdict in run.verdicts(figure)]


def default_band(metric: str, value: float) -> float:
    """Return how far from a published figure counts as the same: 5 % of it, and 0.25 for a Frechet distance."""
    return max(RELATIVE_BAND * abs(value), FRECHET_BAND if metric in FRECHET else 0.0)


class _Run:
    """The records of a suite beside what is published, looked up once."""

    def __init__(self, records: Sequence[Record], published: Sequence[PublishedFigure]) -> None:
        self.workloads = {_workload(record) for record in records}
        self._rows: dict[Any, list[Record]] = defaultdict(list)
        self._full_precision = {
            (record.workload, record.digest): record for record in records if record.is_full_precision
        }
        for record in records:
            self._rows[_workload(record), record.method, _operand_bits(record.bits)].append(record)
        self._gates: dict[tuple[str, Source, str], list[PublishedFigure]] = defaultdict(list)
        for figure in published:
            if figure.is_full_precision:
                self._gates[_table(figure)].append(figure)

    def verdicts(self, figure: PublishedFigure) -> Iterator[Verdict]:
        rows = self._rows.get((figure.workload, figure.method, _operand_bits(figure.bits)), [])
        exact = [row for row in rows if row.bits == figure.bits]
        if not rows:
            band = _band(figure)
            yield Verdict(figure, None, figure.metric, None, "not comparable", ("not run here",), band)
        for record in exact or rows:
            yield self._verdict(figure, record)

    def _verdict(self, figure: PublishedFigure, record: Record) -> Verdict:
        metric = figure.metric
        standin = record.stands_in_for
        if standin is not None:
            metric = standin.metrics.get(metric, metric)
        measured = _measured(record, metric)
        value = None if measured is None else measured.value
        band = _band(figure)
        reasons = list(self._obstacles(figure, record, metric))
        if reasons or measured is None:
            return Verdict(figure, record, metric, value, "not comparable", tuple(reasons), band)
        kind, reason = _compared(figure, measured, record.metrics[metric].direction, band)
        reasons = [reason, *self._cautions(figure)]
        return Verdict(figure, record, metric, value, kind, tuple(reasons), band)

    def _obstacles(self, figure: PublishedFigure, record: Record, metric: str) -> Iterator[str]:
        """Yield everything that keeps a row from being compared, the main reason first."""
        standin = record.stands_in_for
        if standin is not None:
            of_metric = "" if metric == figure.metric else f", and {metric} for {figure.metric}"
            yield f"{record.workload} stands in for {figure.workload}{of_metric}"
        if _measured(record, metric) is None:
            yield _why_there_is_none(record, metric)
        yield from disagreements(record, figure)
        if standin is None and not figure.is_full_precision:
            yield from self._closed_gate(figure, record)

    def _closed_gate(self, figure: PublishedFigure, record: Record) -> Iterator[str]:
        """Yield why full precision does not vouch for the comparison; nothing if it does."""
        theirs = self._gates[_table(figure)]
        if all(each.metric != figure.metric for each in theirs):
            yield f"the source has no full-precision {figure.metric} for {figure.workload}"
        ours = self._full_precision.get((record.workload, record.baseline))
        if ours is None:
            yield f"this run has no full-precision row of seed {record.seed} to judge by"
            return
        for each in theirs:
            measured = _measured(ours, each.metric)
            is_the_metric = each.metric == figure.metric
            if measured is None:
                if is_the_metric:
                    yield f"full precision: {_why_there_is_none(ours, each.metric)}"
            elif measurement(ours, each):
                if is_the_metric:
                    yield from (f"full precision: {reason}" for reason in measurement(ours, each))
            elif is_the_metric and record.metrics.get(each.metric) != ours.metrics.get(each.metric):
                yield f"{each.metric} of full precision was measured in another way than that of this row"
            elif not _within(abs(measured.value - each.value), _band(each)):
                source = "the source" if each.checked else "the source (unchecked)"
                yield (
                    f"full precision has {each.metric} {_number(measured.value)} here and {_number(each.value)} in "
                    f"{source}, outside its band of {_number(_band(each))}, so nothing of {figure.workload} is compared"
                )

    def _cautions(self, figure: PublishedFigure) -> Iterator[str]:
        """Yield what weakens a comparison that was made."""
        gates = [] if figure.is_full_precision else self._gates[_table(figure)]
        unchecked = [each.metric for each in gates if not each.checked]
        if unchecked:
            yield f"judged by a full-precision figure that nobody checked ({', '.join(unchecked)})"


def _compared(figure: PublishedFigure, measured: Figure, direction: str, band: float) -> tuple[VerdictKind, str]:
    """Return the verdict on two figures that were made in the same way."""
    difference = measured.value - figure.value
    distance = abs(difference)
    half_width = None if figure.is_full_precision else _half_width(measured)
    apart = f"{_number(distance)} apart"
    if _within(distance, band):
        return "reproduced", f"{apart}, within the band of {_number(band)}"
    if half_width is not None and _within(distance, half_width):
        return (
            "reproduced",
            f"{apart}, outside the band of {_number(band)} but within our interval of {_number(half_width)}",
        )
    kind: VerdictKind = "better" if (difference < 0) == (direction == "lower") else "worse"
    return kind, f"{apart}, outside the band of {_number(band)}"


def _half_width(measured: Figure) -> float | None:
    """Return half the width of the figure's own 95 % interval over the images drawn; None if it has none."""
    if len(measured.without) != GROUPS:
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # a record may hold any number
        interval = jackknife_interval(measured.value, measured.without)
    half = math.inf if interval is None else (interval.high - interval.low) / 2
    return half if math.isfinite(half) else None


def _measured(record: Record, metric: str) -> Figure | None:
    """Return a figure whose meaning the record tells too."""
    return record.figures.get(metric) if metric in record.metrics else None


def _why_there_is_none(record: Record, metric: str) -> str:
    if metric in record.failures:
        return f"{metric} failed here ({record.failures[metric]})"
    if record.status == "pending":
        return "not run yet"
    if record.status == "failed" and metric in record.metrics:
        return f"failed here ({record.reason})"
    return f"{metric} is not measured here"


def _workload(record: Record) -> str:
    """Return the public id of the workload that a row is of, or stands in for."""
    if record.stands_in_for is not None:
        return record.stands_in_for.workload
    described = record.description.get("workload")
    name = described.get("name") if isinstance(described, Mapping) else None
    return name if isinstance(name, str) else ""


def _operand_bits(bits: str) -> tuple[int, int] | str:
    """Return bits of weights and activations: whether those of the softmax output agree is told as a reason."""
    found = parsed(bits)
    return bits if found is None else (found.weights, found.activations)


def _table(figure: PublishedFigure) -> tuple[str, Source, str]:
    return figure.file, figure.source, figure.workload


def _band(figure: PublishedFigure) -> float:
    return default_band(figure.metric, figure.value) if figure.band is None else figure.band


def _within(distance: float, band: float) -> bool:
    """Whether a distance is at most the band; the last digits of a subtraction do not decide."""
    return distance <= band * (1 + 1e-9)


def _number(value: float) -> str:
    return f"{value:.2f}" if 1 <= abs(value) < 1e6 else f"{value:.3g}"
