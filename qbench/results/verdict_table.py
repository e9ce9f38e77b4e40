"""Published figures beside ours, with a verdict and its reasons, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qbench.records import Record
from qbench.results.published import Source
from qbench.results.table_layout import BITS, METHOD, published_text
from qbench.results.table_model import Column, Row, Table, Value
from qbench.results.verdicts import Verdict


@dataclass(frozen=True)
class PublishedTable:
    """What papers say of one workload.

    Attributes:
        table: one row for each published figure and each cell of ours that it is about.
        sources: where figures are published; the table names them by their number, from 1.
        reasons: why verdicts are what they are, if several are so; the table names them by their letter, from a.
        not_run: published figures of cells that this run does not have, in words.
    """

    table: Table
    sources: tuple[str, ...]
    reasons: tuple[str, ...]
    not_run: tuple[str, ...]


def published_table(records: Sequence[Record], verdicts: Sequence[Verdict]) -> PublishedTable | None:
    """Return the published figures of a workload; None if there are none.

    Args:
        records: of one workload.
        verdicts: of the suite.
    """
    own = verdicts_of(records, verdicts)
    if not own:
        return None
    met = [verdict for verdict in own if verdict.record is not None]
    sources = list(dict.fromkeys(source_text(verdict.figure.source) for verdict in met))
    counts = Counter(reason for verdict in met for reason in verdict.reasons)
    reasons = [reason for reason, count in counts.items() if count > 1]
    several_seeds = len({record.seed for record in records}) > 1
    columns = [METHOD, BITS, *([Column("seed")] if several_seeds else []), Column("metric", is_words=True)]
    columns += [Column("published"), Column("source"), Column("measured")]
    columns += [Column("as", is_words=True), Column("verdict", is_words=True), Column("why", is_words=True)]
    rows: list[Row] = []
    before: Source | None = None
    for verdict in met:
        assert verdict.record is not None
        figure, record = verdict.figure, verdict.record
        rows.append(
            Row(
                (
                    record.label,
                    figure.bits,
                    *([str(record.seed)] if several_seeds else []),
                    figure.metric,
                    published_text(verdict),
                    str(sources.index(source_text(figure.source)) + 1),
                    "-" if verdict.measured is None else Value(verdict.measured),
                    "" if verdict.measured_metric == figure.metric else verdict.measured_metric,
                    verdict.kind,
                    "; ".join(
                        f"({letter(reasons.index(reason))})" if counts[reason] > 1 else reason
                        for reason in verdict.reasons
                    ),
                ),
                opens_group=before not in (None, figure.source),
            )
        )
        before = figure.source
    return PublishedTable(Table(tuple(columns), tuple(rows)), tuple(sources), tuple(reasons), tuple(_not_run(own)))


def verdicts_of(records: Sequence[Record], verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the verdicts on a workload: on its cells, and on published figures that no cell is there for."""
    digests = {record.digest for record in records}
    workloads = {record.stands_in_for.workload for record in records if record.stands_in_for is not None}
    workloads |= {_workload_id(record) for record in records}
    return [
        verdict
        for verdict in verdicts
        if (verdict.figure.workload in workloads if verdict.record is None else verdict.record.digest in digests)
    ]


def source_text(source: Source) -> str:
    """Return where a figure is published, in one line."""
    return ", ".join(filter(None, (source.paper, source.table, source.url)))


def letter(place: int) -> str:
    """Return how a footnote is named: a to z, then aa."""
    head, tail = divmod(place, 26)
    return (letter(head - 1) if head else "") + chr(ord("a") + tail)


def _not_run(verdicts: Iterable[Verdict]) -> list[str]:
    found: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.record is None:
            figure = verdict.figure
            row = f"{figure.method or 'full-precision'} {figure.bits}"
            found.setdefault(row, []).append(f"{figure.metric} {published_text(verdict)}")
    return [f"{row}: {', '.join(figures)}" for row, figures in found.items()]


def _workload_id(record: Record) -> str:
    workload = record.description.get("workload")
    name = workload.get("name") if isinstance(workload, dict) else None
    return name if isinstance(name, str) else record.workload
