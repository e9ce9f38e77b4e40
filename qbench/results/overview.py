"""The overview over all suites in Markdown: who is best at which bits, how sure that is, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from qbench.records import Record
from qbench.results.best import Contest
from qbench.results.costs import calibration_seconds, seconds_text
from qbench.results.markdown import escaped, item, link, markdown_rows
from qbench.results.pareto import drawn_metric
from qbench.results.table_model import Column
from qbench.results.tables import SuiteReport
from qbench.results.verdict_table import verdicts_of
from qbench.results.wording import (
    BOUNDARY,
    boundary_text,
    change_text,
    conditions,
    has_interval,
    is_about_quality,
    picture_file,
    spread_text,
    value_text,
    varying,
)

HOW_TO_READ = (
    "Rows of equal bits compete, first for quality, then for fidelity to full precision. In bold is who is best at the "
    "seeds that were run: the 95 % interval of its difference from every other row excludes zero, and all seeds "
    "agree; beside it stands the difference from the second. Rows of the same noise are compared in pairs; records of "
    "version 1 by their two intervals, which may not overlap. Where nobody is best, all are named that cannot be told "
    "apart from the best figure. Intervals are over the images drawn: how another calibration would have turned out, "
    "only several seeds show, and of one seed nothing is known. Calibration is the time for calibration data, weights, "
    "activations and correction, on the machine of the run, mean over seeds."
)


def overview(signature: str, reports: Sequence[SuiteReport], problems: Sequence[str]) -> str:
    """Return a section for each suite, and one for what was found wrong.

    Args:
        signature: the sentence that says who wrote it.
        reports: of all suites.
        problems: in sentences.
    """
    parts = ["# Results", f"{signature} {link('index.html', 'index.html')} shows all of it, cell by cell.", HOW_TO_READ]
    for report in reports:
        parts += _suite(report)
    if problems:
        parts += ["## Problems", "\n".join(map(item, problems))]
    return "\n\n".join(parts) + "\n"


def _suite(report: SuiteReport) -> Iterable[str]:
    folder = report.results.folder.absolute().name
    title = report.records[0].suite.title if report.records else folder
    yield f"## {escaped(title)}"
    states = Counter[str](record.status for record in report.records)
    words = {"complete": "complete", "failed": "failed", "pending": "not run"}
    counts = ", ".join(f"{states[state]} {word}" for state, word in words.items() if states[state])
    names = ("table.md", "table.tex", "table.csv", "costs.md", "costs.csv")
    files = ", ".join(link(name, f"{folder}/{name}") for name in names)
    yield f"Cells in {link(f'{folder}/', f'{folder}/')}: {counts or 'none'}. Everything of them: {files}."
    for workload in sorted({record.workload for record in report.records}):
        yield from _workload(report, workload, folder)


def _workload(report: SuiteReport, workload: str, folder: str) -> Iterable[str]:
    records = [record for record in report.records if record.workload == workload]
    yield f"### {escaped(workload)}"
    yield escaped(conditions(records))
    chosen = _chosen_metrics(report, records)
    if chosen:
        yield _winners(report, records, chosen)
    metric = drawn_metric(records, report.results.metrics)
    if metric is not None:
        picture = f"{folder}/media/{picture_file('pareto', workload)}"
        yield "!" + link(f"{workload}: {metric} against size", picture)
    kinds = Counter(verdict.kind for verdict in verdicts_of(records, report.verdicts) if verdict.record is not None)
    if kinds:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        yield f"Published figures beside ours: {told}; {link('why', f'{folder}/table.md')}."


def _chosen_metrics(report: SuiteReport, records: Sequence[Record]) -> list[str]:
    """Return the first metric of quality and the first of fidelity, those with intervals before others."""
    metrics = report.results.metrics
    there = [name for name in metrics if any(name in record.figures for record in records)]
    sure_first = sorted(there, key=lambda name: not has_interval(records, name))
    chosen = []
    for about_quality in (True, False):
        chosen += [name for name in sure_first if is_about_quality(metrics[name]) is about_quality][:1]
    return chosen


def _winners(report: SuiteReport, records: Sequence[Record], chosen: Sequence[str]) -> str:
    has_boundary = BOUNDARY in varying(records)
    columns = [Column("bits", is_words=True), *([Column(BOUNDARY)] if has_boundary else []), Column("MB")]
    for name in chosen:
        columns += [
            Column(f"best {name}", report.results.metrics[name].direction, is_words=True),
            Column("how sure", is_words=True),
        ]
    columns.append(Column("calibration", is_words=True))
    groups: dict[tuple[str, int | None], dict[str, Contest]] = {}
    for contest in report.contests:
        if contest.workload == records[0].workload and contest.metric in chosen:
            groups.setdefault((contest.bits, contest.boundary_bits), {})[contest.metric] = contest
    rows = [_full_precision(records, chosen, has_boundary)]
    for (bits, boundary_bits), found in groups.items():
        own = [record for record in records if record.bits == bits and record.boundary_bits == boundary_bits]
        row = [escaped(bits), *([boundary_text(boundary_bits)] if has_boundary else []), _sizes(own)]
        for name in chosen:
            row += [_best(found[name], own), _how_sure(found[name])] if name in found else ["-", ""]
        rows.append([*row, _calibration(own, found.values())])
    return markdown_rows(columns, [row for row in rows if row])


def _full_precision(records: Sequence[Record], chosen: Sequence[str], has_boundary: bool) -> list[str]:
    """Return the row that all others are measured by; nothing if there is none."""
    own = [record for record in records if record.is_full_precision]
    if not own:
        return []
    row = [escaped(own[0].bits), *(["-"] if has_boundary else []), _sizes(own)]
    for name in chosen:
        found = [record.figures[name].value for record in own if name in record.figures]
        row += [f"{escaped(own[0].label)} {_mean(found)}" if found else "-", ""]
    return [*row, ""]


def _mean(values: Sequence[float]) -> str:
    return value_text(values[0]) if len(values) == 1 else spread_text(values, len(values))


def _best(contest: Contest, records: Sequence[Record]) -> str:
    if not contest.leaders:
        return "-"
    label = contest.leaders[0]
    own = [record for record in records if record.label == label]
    figures = [record.figures[contest.metric].value for record in own if contest.metric in record.figures]
    name = f"**{escaped(label)}**" if contest.winner is not None else escaped(label)
    return f"{name} {_mean(figures)}"


def _how_sure(contest: Contest) -> str:
    out = f" ({len(contest.out)} out)" if contest.out else ""
    if not contest.ranking:
        return f"no row competes{out}"
    if contest.runner_up is None or contest.difference is None:
        return f"no other row{out}"
    if contest.winner is not None:
        found = contest.difference
        return escaped(f"{change_text(found.delta, found.low, found.high)} against {contest.runner_up}") + out
    if contest.difference.low is None:
        return f"no interval{out}"
    others = contest.leaders[1:]
    if len(others) == len(contest.ranking) - 1 > 1:
        return f"not told apart from any other{out}"
    return escaped(f"not told apart from {', '.join(others)}") + out


def _sizes(records: Sequence[Record]) -> str:
    sizes = sorted({f"{record.profile.size_mb:.2f}" for record in records if record.profile is not None}, key=float)
    if not sizes:
        return "-"
    return sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _calibration(records: Sequence[Record], found: Iterable[Contest]) -> str:
    """Return how long the methods with the best figures took."""
    labels = list(dict.fromkeys(contest.leaders[0] for contest in found if contest.leaders))
    told = []
    for label in labels:
        seconds = [calibration_seconds(record) for record in records if record.label == label]
        known = [each for each in seconds if each is not None]
        if known:
            told.append((label, seconds_text(fmean(known))))
    if len(labels) == 1:
        return told[0][1] if told else "-"
    return escaped(", ".join(f"{label} {time}" for label, time in told)) or "-"
