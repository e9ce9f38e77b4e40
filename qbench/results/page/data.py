"""What a page shows, as JSON: numbers to sort and draw by, and texts that are formatted here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qbench.results.notes import Note, column_notes, row_notes
from qbench.results.page.cells import cell_data
from qbench.results.page.images import embedded_strips
from qbench.results.page.pool import Pool
from qbench.results.page.rows import row_data, rows_of
from qbench.results.page.verdicts import contest_data, verdict_data
from qbench.results.reading import SuiteResults
from qbench.results.wording import ARROW, cell_text, conditions, is_about_quality

if TYPE_CHECKING:
    from qbench.records import MetricInfo
    from qbench.results.best import Contest
    from qbench.results.verdicts import Verdict

FILES = ("table.md", "table.csv", "table.tex", "costs.md", "costs.csv", "curves.csv", "protocols.json")
"""What lies beside the records of a suite; a page links to those that are there."""


def page_data(
    suites: Sequence[SuiteResults],
    verdicts: Mapping[str, Sequence[Verdict]],
    contests: Mapping[str, Sequence[Contest]],
    problems: Sequence[str],
) -> dict[str, Any]:
    """Return everything that a page shows.

    Args:
        suites: the records of each folder.
        verdicts: by the name of the suite's folder, as are the contests.
        contests: who is best.
        problems: what was found wrong on the way, in sentences.

    Raises:
        ResultsError: a column of a suite would hold two protocols.
    """
    pool, digests = Pool(), Pool()
    told = list(problems)
    parts: dict[str, list[Any]] = {"suites": [], "cells": [], "rows": []}
    for place, found in enumerate(suites):
        name, metrics = found.folder.name, found.metrics
        strips, unreadable = embedded_strips(found.records, found.folder, pool)
        told += [problem for problem in unreadable if problem not in told]
        first = len(parts["cells"])
        for record, strip in zip(found.records, strips, strict=True):
            parts["cells"].append({"suite": place} | cell_data(record, list(metrics), pool, digests) | {"strip": strip})
        parts["rows"] += [
            {"suite": place} | row_data(found.records, row, list(metrics), first) for row in rows_of(found.records)
        ]
        parts["suites"].append(
            _suite(found, metrics, contests.get(name, ()))
            | {
                "contests": [contest_data(each) for each in contests.get(name, ())],
                "verdicts": [verdict_data(each) for each in verdicts.get(name, ())],
            }
        )
    return parts | {"problems": told, "pool": pool.values, "digests": digests.values}


def _suite(found: SuiteResults, metrics: Mapping[str, MetricInfo], contests: Sequence[Contest]) -> dict[str, Any]:
    records = found.records
    return {
        "name": found.folder.name,
        "title": records[0].suite.title if records else found.folder.name,
        "metrics": [_metric(note, metrics[note.term]) for note in column_notes(records, metrics)],
        "notes": [note.text for note in row_notes(records, metrics, contests)],
        "workloads": [
            [workload, conditions([record for record in records if record.workload == workload])]
            for workload in dict.fromkeys(record.workload for record in records)
        ],
        "outdated": [cell_text(record) for record in found.outdated],
        "files": [name for name in FILES if (found.folder / name).is_file()],
    }


def _metric(note: Note, info: MetricInfo) -> dict[str, Any]:
    return {
        "id": note.term,
        "arrow": ARROW[info.direction],
        "direction": info.direction,
        "quality": is_about_quality(info),
        "title": info.title,
        "note": note.text.partition(": ")[2],  # behind the direction, which the page says in its own place
        "paper": info.paper,
    }
