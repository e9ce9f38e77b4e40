"""Rows over seeds: cells that differ in nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

from qbench.records import Record
from qbench.results.page.cells import cost_data, figure_data, rounded
from qbench.results.seeds import change_over_seeds, full_precision_by_seed, interval_of
from qbench.results.wording import is_about_quality, spread_text


def rows_of(records: Sequence[Record]) -> list[list[int]]:
    """Return the places of the records that belong to one row, for each row."""
    found: dict[tuple[str, str, str, int | None], list[int]] = {}
    for place, record in enumerate(records):
        found.setdefault((record.workload, record.label, record.bits, record.boundary_bits), []).append(place)
    return list(found.values())


def row_data(records: Sequence[Record], places: Sequence[int], metrics: Sequence[str], first: int) -> dict[str, Any]:
    """Return a row: which cells it is of, and the mean of their figures.

    Args:
        records: of one suite.
        places: of the row's cells among them.
        metrics: ids of the suite's columns.
        first: place of the suite's first cell on the page.
    """
    cells = [records[place] for place in places]
    row: dict[str, Any] = {"cells": [first + place for place in places]}
    if len(cells) > 1:
        full = full_precision_by_seed(records, cells[0].workload)
        row["figures"] = [_mean(cells, full, name) for name in metrics]
        row["calibration"] = cost_data(cells)
    return row


def _mean(cells: Sequence[Record], full: Mapping[int, Record], name: str) -> Any:
    """Return a figure over seeds in the form of ``figure_data``; the interval is that of the mean difference."""
    figures = [cell.figures[name] for cell in cells if name in cell.figures and name not in cell.failures]
    if not figures:
        return figure_data(cells[0], name)
    text = spread_text([figure.value for figure in figures], len(cells))
    value = fsum(figure.value for figure in figures) / len(figures)
    deltas = [figure.delta for figure in figures if figure.delta is not None]
    info = cells[0].metrics.get(name)
    if not deltas or info is None or not is_about_quality(info):
        return [rounded(value), text, "", None, None, None, False]
    change = change_over_seeds(cells, full, name)
    interval = interval_of(change)
    told = spread_text(deltas, len(cells), "+", interval)
    bounds = [None, None] if interval is None else [rounded(each) for each in interval]
    is_conclusive = change is not None and change.is_conclusive
    return [rounded(value), text, told, rounded(fsum(deltas) / len(deltas)), *bounds, is_conclusive]
