"""Who is best and what papers say, as a page shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qbench.cell import cell_id
from qbench.results.page.cells import rounded
from qbench.results.wording import change_text, value_text

if TYPE_CHECKING:
    from qbench.results.best import Contest
    from qbench.results.verdicts import Verdict


def contest_data(contest: Contest) -> dict[str, Any]:
    """Return who is best at some bits, how sure that is, and who does not compete."""
    lead = contest.difference
    return {
        "workload": contest.workload,
        "bits": contest.bits,
        "boundary": contest.boundary_bits,
        "metric": contest.metric,
        "winner": contest.winner,
        "leaders": list(contest.leaders),
        "runnerUp": contest.runner_up,
        "lead": "" if lead is None else change_text(lead.delta, lead.low, lead.high),
        "leadIsSure": lead is not None and lead.is_conclusive,
        "out": list(contest.out),
        "ranking": list(contest.ranking),
    }


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Return a published figure beside the measured one, and what comes of it."""
    figure, record = verdict.figure, verdict.record
    return {
        "cell": None if record is None else cell_id(record.key),
        "method": figure.method or "full-precision",
        "bits": figure.bits,
        "workload": figure.workload,
        "metric": figure.metric,
        "published": f"{figure.value:.10g}",
        "value": rounded(figure.value),
        "checked": figure.checked,
        "readIn": figure.read_in,
        "note": figure.note,
        "paper": figure.source.paper,
        "table": figure.source.table,
        "url": figure.source.url,
        "measuredMetric": verdict.measured_metric,
        "measured": None if verdict.measured is None else value_text(verdict.measured),
        "kind": verdict.kind,
        "reasons": list(verdict.reasons),
        "band": value_text(verdict.band),
    }
