"""Who is best: which row of equal bits has the best figure, and from which others it cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from qbench.records import Record
from qbench.results.comparing import Difference, mean_difference

COVERAGE_MARGIN = 0.01
"""A row whose share of quantized MACs is lower by more than this than the highest does not compete."""

ContestKey = tuple[str, str, int | None]


@dataclass(frozen=True)
class Contest:
    """Rows of equal bits that compete for the best figure.

    Attributes:
        workload: label of the workload.
        bits: of all rows.
        boundary_bits: of all rows.
        metric: id of the figure.
        winner: label of the row whose interval of the difference from every other one excludes 0; None if there is no
            such row.
        leaders: the row with the best figure, then all that it cannot be told apart from, best first; empty if nobody
            competes.
        runner_up: label of the row with the second best figure; None if there is none.
        difference: of the best figure minus that of the runner-up.
        out: label and reason of each row that does not compete.
        lower_coverage: those of them that have the figure, but leave more of the network unquantized than others.
        ranking: all rows that compete, best first.
    """

    workload: str
    bits: str
    boundary_bits: int | None
    metric: str
    winner: str | None
    leaders: tuple[str, ...]
    runner_up: str | None
    difference: Difference | None
    out: tuple[tuple[str, str], ...]
    lower_coverage: tuple[tuple[str, str], ...]
    ranking: tuple[str, ...]


def contests(records: Sequence[Record], metrics: Iterable[str]) -> list[Contest]:
    """Return who is best at each workload, bits and bits of the first and last layer, in each metric.

    A figure is the mean over the seeds at which any row has it. The row with the best one wins only if the intervals of
    its paired differences from every other row exclude 0 (and all seeds agree); a metric without intervals has no
    winner. Nothing wins alone. Full precision does not compete, nor does a row that leaves more of the network
    unquantized than others, or that lacks the figure at a seed which others have.

    Args:
        records: of one suite, in its order.
        metrics: ids of the figures.
    """
    groups: dict[ContestKey, dict[str, dict[int, Record]]] = {}
    for record in records:
        if not record.is_full_precision:
            rows = groups.setdefault((record.workload, record.bits, record.boundary_bits), {})
            rows.setdefault(record.label, {})[record.seed] = record
    names = list(metrics)
    return [
        _contest(key, metric, rows)
        for key, rows in groups.items()
        for metric in names
        if any(metric in record.metrics for seeds in rows.values() for record in seeds.values())
    ]


def _contest(key: ContestKey, metric: str, rows: dict[str, dict[int, Record]]) -> Contest:
    missing = _missing(rows, metric)
    there = {label: _with_figure(seeds, metric) for label, seeds in rows.items() if label not in missing}
    lower = _lower_coverage(there)
    reasons = missing | lower
    means = {
        label: fsum(record.figures[metric].value for record in seeds.values()) / len(seeds)
        for label, seeds in there.items()
        if label not in reasons
    }
    is_higher_better = any(
        metric in record.metrics and record.metrics[metric].direction == "higher"
        for seeds in rows.values()
        for record in seeds.values()
    )
    ranking = tuple(sorted(means, key=lambda label: -means[label] if is_higher_better else means[label]))
    differences = {label: _difference(there[ranking[0]], there[label], metric) for label in ranking[1:]}
    behind = {label for label, found in differences.items() if found is not None and found.is_conclusive}
    leaders = tuple(label for label in ranking if label not in behind)
    return Contest(
        *key,
        metric=metric,
        winner=ranking[0] if len(ranking) > 1 and len(leaders) == 1 else None,
        leaders=leaders,
        runner_up=ranking[1] if differences else None,
        difference=differences[ranking[1]] if differences else None,
        out=tuple((label, reasons[label]) for label in rows if label in reasons),
        lower_coverage=tuple(lower.items()),
        ranking=ranking,
    )


def _missing(rows: dict[str, dict[int, Record]], metric: str) -> dict[str, str]:
    """Return rows that lack the figure where others have it, and why."""
    due = sorted({seed for seeds in rows.values() for seed in _with_figure(seeds, metric)})
    several_seeds = len({seed for seeds in rows.values() for seed in seeds}) > 1
    found = {}
    for label, seeds in rows.items():
        lacking = [seed for seed in due if seed not in _with_figure(seeds, metric)]
        if lacking:
            named = f" at seed {', '.join(map(str, lacking))}" if several_seeds else ""
            found[label] = f"{_state([seeds[seed] for seed in lacking if seed in seeds], metric)}{named}"
        elif not due:
            found[label] = _state(list(seeds.values()), metric)
    return found


def _with_figure(seeds: dict[int, Record], metric: str) -> dict[int, Record]:
    return {seed: record for seed, record in seeds.items() if _has(record, metric)}


def _lower_coverage(rows: dict[str, dict[int, Record]]) -> dict[str, str]:
    """Return rows that leave more of the network unquantized than others, and why that is so."""
    coverages = {label: _coverage(seeds.values()) for label, seeds in rows.items()}
    highest = max((each for each in coverages.values() if each is not None), default=0.0)
    found = {}
    for label, coverage in coverages.items():
        if coverage is None:
            found[label] = "how much of the network is quantized is not known"
        elif coverage < highest - COVERAGE_MARGIN:
            found[label] = f"{100 * coverage:.1f} % of MACs quantized, of others {100 * highest:.1f} %"
    return found


def _has(record: Record, metric: str) -> bool:
    return metric in record.figures and metric not in record.failures


def _state(records: Sequence[Record], metric: str) -> str:
    if any(metric in record.failures for record in records):
        return "failed"
    return "not run" if any(record.status == "pending" for record in records) else "no figure"


def _coverage(records: Iterable[Record]) -> float | None:
    found = [record.profile.coverage_macs if record.profile else None for record in records]
    known = [each for each in found if each is not None]
    return min(known) if len(known) == len(found) else None


def _difference(best: dict[int, Record], other: dict[int, Record], metric: str) -> Difference | None:
    return mean_difference([(best[seed], other[seed]) for seed in best], metric)
