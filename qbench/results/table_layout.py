"""What stands in the tables of a suite, in the layout of the papers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from qbench.records import MetricInfo, ProfileInfo, Record
from qbench.results.best import Contest
from qbench.results.seeds import change_over_seeds, full_precision_by_seed, interval_of
from qbench.results.table_model import Cell, Change, Column, Row, Spread, Table, Value
from qbench.results.verdicts import Verdict
from qbench.results.wording import BOUNDARY, VARYING, boundary_text, has_interval, is_about_quality, label_text, varying

MINUS_FULL_PRECISION, INTERVAL = "minus full precision", "95 %"
MINUS_OVER_SEEDS = "minus full precision [95 %] (over seeds)"
MACS, PARAMETERS, LEFT_OUT, PUBLISHED = "MACs quantized", "parameters quantized", "left out", "published"
RowName = tuple[str, str, str, int | None]
"""Workload, label, bits, bits of the first and last layer."""
METHOD, BITS = Column("method", is_words=True), Column("bits", is_words=True)


def in_order(records: Sequence[Record]) -> list[Record]:
    """Return cells in the order of the papers' tables: full precision first, then bits by bits, seed after seed."""
    seeds, bits, boundaries = (
        {each: place for place, each in enumerate(dict.fromkeys(found))}
        for found in (
            [record.seed for record in records],
            [record.bits for record in records],
            [record.boundary_bits for record in records if not record.is_full_precision],
        )
    )
    return sorted(
        records,
        key=lambda record: (
            seeds[record.seed],
            not record.is_full_precision,
            boundaries.get(record.boundary_bits, 0),
            bits[record.bits],
            record.suite.position,
            record.key,
        ),
    )


def cells_table(
    records: Sequence[Record],
    metrics: Mapping[str, MetricInfo],
    contests: Sequence[Contest] = (),
    verdicts: Sequence[Verdict] = (),
) -> Table:
    """Return one row for each cell.

    Args:
        records: of one workload.
        metrics: what the columns stand for.
        contests: whose winners are marked; those of several seeds belong to ``seeds_table``.
        verdicts: published figures beside ours, where ours is the very metric.
    """
    ordered = in_order(records)
    names = used_metrics(ordered, metrics)
    marked = _winners(contests) if "seed" not in varying(records) else frozenset()
    published = _published_beside(ordered, verdicts)
    leaves_out = _leaves_out(ordered)
    told = varying(ordered)
    columns = [METHOD, BITS, *(Column(name) for name in told)]
    columns += _profile_columns(leaves_out)
    for name in names:
        columns.append(Column(name, metrics[name].direction))
        columns += [Column(title) for title in _beside(ordered, name, metrics[name])]
        columns += [Column(PUBLISHED, is_words=True)] if any(key[0] == name for key in published) else []
    rows = []
    for record in ordered:
        row: list[Cell] = [label_text(record), record.bits, *(VARYING[name](record) for name in told)]
        row += _profile(record.profile, leaves_out)
        for name in names:
            row.append(_figure(record, name, (_name(record), name) in marked))
            row += [_change(record, name, metrics[name]) for _ in _beside(ordered, name, metrics[name])]
            if any(key[0] == name for key in published):
                row.append(published.get((name, record.digest), ""))
        rows.append(row)
    return Table(tuple(columns), _grouped(rows, [_group(record) for record in ordered]))


def seeds_table(
    records: Sequence[Record], metrics: Mapping[str, MetricInfo], contests: Sequence[Contest] = ()
) -> Table | None:
    """Return one row for what differs in its seed only; None if there is nothing with several seeds.

    Seeds set calibration and sampling noise, so their spread shows what the intervals over images do not cover.
    """
    groups: dict[RowName, list[Record]] = {}
    for record in in_order(records):
        groups.setdefault(_name(record), []).append(record)
    if all(len(group) == 1 for group in groups.values()):
        return None
    names, marked = used_metrics(records, metrics), _winners(contests)
    has_boundary = BOUNDARY in varying(records)
    columns = [METHOD, BITS, *([Column(BOUNDARY)] if has_boundary else []), Column("seeds")]
    leaves_out = _leaves_out(records)
    columns += _profile_columns(leaves_out)
    intervals = _intervals_over_seeds(groups, full_precision_by_seed(records, records[0].workload), names)
    for name in names:
        columns.append(Column(name, metrics[name].direction))
        title = MINUS_OVER_SEEDS if any(each == name for _, each in intervals) else MINUS_FULL_PRECISION
        columns += [Column(title)] if is_about_quality(metrics[name]) else []
    rows = []
    for key, group in groups.items():
        row: list[Cell] = [label_text(group[0]), group[0].bits]
        row += [boundary_text(group[0].boundary_bits)] if has_boundary else []
        row += [str(len(group)), *_profile(_least_covered(group), leaves_out)]
        for name in names:
            found = [record.figures[name] for record in group if name in record.figures and name not in record.failures]
            values = tuple(figure.value for figure in found)
            row.append(Spread(values, len(group), is_best=(key, name) in marked) if values else _state(group, name))
            if is_about_quality(metrics[name]):
                deltas = tuple(figure.delta for figure in found if figure.delta is not None)
                spread = Spread(deltas, len(group), is_difference=True, interval=intervals.get((key, name)))
                row.append(spread if deltas else "-")
        rows.append(row)
    return Table(tuple(columns), _grouped(rows, [_group(group[0]) for group in groups.values()]))


def used_metrics(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> list[str]:
    """Return the metrics that any of the rows has, in the order of the columns."""
    return [name for name in metrics if any(name in record.metrics for record in records)]


def verdict_text(verdict: Verdict) -> str:
    """Return a published figure with what ours says of it."""
    return f"{published_text(verdict)} {verdict.kind}"


def published_text(verdict: Verdict) -> str:
    """Return a published figure, marked if nobody read it in its source."""
    return f"{verdict.figure.value:.6g}" + ("" if verdict.figure.checked else " (unchecked)")


def _grouped(rows: Sequence[Sequence[Cell]], groups: Sequence[object]) -> tuple[Row, ...]:
    before = [None, *groups]
    return tuple(
        Row(tuple(row), opens_group=place > 0 and group != before[place])
        for place, (row, group) in enumerate(zip(rows, groups, strict=True))
    )


def _group(record: Record) -> tuple[int, bool, str, int | None]:
    boundary = None if record.is_full_precision else record.boundary_bits
    return record.seed, record.is_full_precision, record.bits, boundary


def _name(record: Record) -> RowName:
    return record.workload, record.label, record.bits, record.boundary_bits


def _winners(contests: Sequence[Contest]) -> Collection[tuple[RowName, str]]:
    return {
        ((each.workload, each.winner, each.bits, each.boundary_bits), each.metric)
        for each in contests
        if each.winner is not None
    }


def _published_beside(records: Sequence[Record], verdicts: Sequence[Verdict]) -> dict[tuple[str, str], str]:
    """Return what papers say of figures, by metric and digest of the cell: only where ours is the very metric."""
    ours = {record.digest for record in records}
    found: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        if verdict.record is None or verdict.record.digest not in ours or verdict.measured is None:
            continue
        if verdict.measured_metric == verdict.figure.metric:
            found.setdefault((verdict.measured_metric, verdict.record.digest), []).append(verdict_text(verdict))
    return {key: "; ".join(texts) for key, texts in found.items()}


def _beside(records: Sequence[Record], name: str, info: MetricInfo) -> list[str]:
    """Return the title of what stands beside a figure, if there is anything."""
    if is_about_quality(info):
        return [MINUS_FULL_PRECISION]
    return [INTERVAL] if has_interval(records, name) else []


def _leaves_out(records: Sequence[Record]) -> bool:
    return any(record.profile is not None and record.profile.left_out for record in records)


def _profile_columns(leaves_out: bool) -> list[Column]:
    return [Column("MB"), Column(MACS), Column(PARAMETERS), *([Column(LEFT_OUT)] if leaves_out else [])]


def _least_covered(records: Sequence[Record]) -> ProfileInfo | None:
    profiles = [record.profile for record in records if record.profile is not None]
    return min(profiles, key=lambda profile: profile.coverage_macs, default=None)


def _profile(profile: ProfileInfo | None, leaves_out: bool) -> list[Cell]:
    if profile is None:
        return ["-"] * (4 if leaves_out else 3)
    shares = [f"{100 * share:.1f} %" for share in (profile.coverage_macs, profile.coverage_parameters)]
    left_out = [str(len(profile.left_out)) if profile.left_out else "-"] if leaves_out else []
    return [f"{profile.size_mb:.2f}", *shares, *left_out]


def _figure(record: Record, name: str, is_best: bool) -> Cell:
    figure = None if name in record.failures else record.figures.get(name)
    return _state([record], name) if figure is None else Value(figure.value, is_best)


def _state(records: Sequence[Record], name: str) -> str:
    if any(name in record.failures for record in records):
        return "failed"
    return "not run" if any(record.status == "pending" for record in records) else "-"


def _intervals_over_seeds(
    groups: Mapping[RowName, Sequence[Record]], full: Mapping[int, Record], names: Sequence[str]
) -> dict[tuple[RowName, str], tuple[float, float]]:
    """Return the interval of the mean difference from full precision, by row and metric, where there is one."""
    found = {
        (key, name): interval_of(change_over_seeds(cells, full, name))
        for key, cells in groups.items()
        for name in names
    }
    return {place: interval for place, interval in found.items() if interval is not None}


def _change(record: Record, name: str, info: MetricInfo) -> Cell:
    figure = None if name in record.failures else record.figures.get(name)
    if figure is None or figure.delta is None:
        return ""
    only_interval = not is_about_quality(info)
    if only_interval and (figure.low is None or figure.high is None):
        return ""
    return Change(figure.delta, figure.low, figure.high, only_interval)
