"""Everything that is written into the folder of one suite: a pure function of its records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.records import MetricInfo, Record, write_text
from qbench.results.best import Contest, contests
from qbench.results.costs_table import costs_markdown
from qbench.results.csv_tables import costs_csv, curves_csv, figures_csv
from qbench.results.curves import write_curve_pictures
from qbench.results.latex import suite_latex
from qbench.results.markdown import suite_markdown
from qbench.results.pareto import write_pareto_pictures
from qbench.results.pictures import write_sheets
from qbench.results.published import published_folders, published_names, read_published
from qbench.results.reading import SuiteResults, read_suite_results, without_folder
from qbench.results.verdicts import Verdict, verdicts
from qbench.results.wording import references

if TYPE_CHECKING:
    from qbench.results.collecting import Overlay


@dataclass(frozen=True)
class SuiteReport:
    """What there is to say of a suite.

    Attributes:
        results: its records; what is wrong with files is told in ``unreadable``.
        contests: who is best.
        verdicts: on published figures.
    """

    results: SuiteResults
    contests: tuple[Contest, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """The rows of its tables."""
        return self.results.records


def write_suite_tables(
    folder: Path, published: Sequence[Path] | None = None, overlay: Overlay | None = None
) -> SuiteResults:
    """Write a folder's tables, its pictures and ``protocols.json``, and return its records.

    The tables are ``table.md``, ``table.tex``, ``table.csv``, ``curves.csv``, ``costs.csv`` and ``costs.md``.

    Args:
        folder: of the suite.
        published: folders of published figures; None for those beside the results, and the installed ones.
        overlay: what is shown in place of a record that is pending.

    Raises:
        ResultsError: a column would hold two protocols, or the folder cannot be written.
    """
    return write_report(make_report(folder, published, overlay)).results


def make_report(folder: Path, published: Sequence[Path] | None = None, overlay: Overlay | None = None) -> SuiteReport:
    """Read a suite's folder and compare its rows with each other and with what is published.

    Args:
        folder: of the suite.
        published: folders of published figures; None for those beside the results, and the installed ones.
        overlay: what is shown in place of a record that is pending.

    Raises:
        ResultsError: a column would hold two protocols.
    """
    results = read_suite_results(folder)
    if overlay is not None:
        shown = tuple(overlay(record) if record.status == "pending" else record for record in results.records)
        results = replace(results, records=shown)
    folders = published_folders(folder.absolute().parent) if published is None else published
    figures, problems = read_published(published_names(results.records), folders)
    return SuiteReport(
        replace(results, unreadable=(*results.unreadable, *problems)),
        tuple(contests(results.records, results.metrics)),
        tuple(verdicts(results.records, figures)),
    )


def write_report(report: SuiteReport) -> SuiteReport:
    """Write everything that a suite's folder holds beside its records.

    Returns:
        The report, with what is wrong with its strips.

    Raises:
        ResultsError: the folder cannot be written.
    """
    draw_pictures(report.records, report.results.metrics, report.results.folder)
    return write_texts(report)


def draw_pictures(records: Sequence[Record], metrics: Mapping[str, MetricInfo], folder: Path) -> None:
    """Draw curves, and quality against size; this takes most of the time.

    Raises:
        ResultsError: the folder cannot be written.
    """
    write_curve_pictures(records, folder)
    write_pareto_pictures(records, metrics, folder)


def write_texts(report: SuiteReport) -> SuiteReport:
    """Write a suite's tables, and its sheets of images.

    Returns:
        The report, with what is wrong with its strips.

    Raises:
        ResultsError: the folder cannot be written.
    """
    results = report.results
    folder, records, metrics = results.folder, results.records, results.metrics
    protocols = json.dumps(_protocols(records, metrics), indent=1, sort_keys=True)
    write_text(folder / "table.csv", figures_csv(records, metrics))
    write_text(folder / "curves.csv", curves_csv(records))
    write_text(folder / "costs.csv", costs_csv(records))
    write_text(folder / "costs.md", costs_markdown(records))
    write_text(folder / "protocols.json", f"{protocols}\n")
    problems = [without_folder(problem, folder) for problem in write_sheets(records, folder)]
    write_text(folder / "table.tex", suite_latex(records, metrics, report.contests, report.verdicts))
    text = suite_markdown(records, metrics, results.outdated, report.contests, report.verdicts)
    write_text(folder / "table.md", text)
    return replace(report, results=replace(results, unreadable=(*results.unreadable, *problems)))


def _protocols(records: Sequence[Record], metrics: dict[str, MetricInfo]) -> dict[str, Any]:
    return {
        name: {**info.model_dump(mode="json"), "references": references(records, name)}
        for name, info in metrics.items()
    }
