"""Tables on the terminal."""

from collections.abc import Sequence
from itertools import groupby

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qbench.records import MetricInfo, Record
from qbench.results.wording import ARROW, VARYING, conditions, figure_text, is_about_quality, varying

LOG_WIDTH = 160
"""Width where nobody reads on a terminal."""
GAP = 2


def print_records(records: Sequence[Record]) -> None:
    """Print a table for each workload, one row for each cell; intervals only where there is room for them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    for workload, group in groupby(records, key=lambda record: record.workload):
        of_workload = list(group)
        console.print(Text(f"{workload}: {conditions(of_workload)}"))
        rows = _rows(of_workload, with_intervals=True)
        if _width(rows) > console.width:
            rows = _rows(of_workload, with_intervals=False)
        if _width(rows) <= console.width:
            console.print(_lines(rows), no_wrap=True)
        else:
            console.print(_table(rows))


def _rows(records: Sequence[Record], with_intervals: bool) -> list[list[str]]:
    metrics = {name: info for record in records for name, info in record.metrics.items()}
    columns = varying(records)
    header = ["method", "bits", *columns, "MB", "MACs"]
    rows = [[*header, *(f"{name} {ARROW[info.direction]}" for name, info in metrics.items())]]
    for record in records:
        profile = record.profile
        row = [record.label, record.bits, *(VARYING[name](record) for name in columns)]
        row += [f"{profile.size_mb:.2f}", f"{100 * profile.coverage_macs:.0f} %"] if profile else ["-", "-"]
        rows.append(row + [_figure(record, name, info, with_intervals) for name, info in metrics.items()])
    return rows


def _figure(record: Record, name: str, info: MetricInfo, with_intervals: bool) -> str:
    pending = record.status == "pending"
    value, difference = figure_text(record.figures.get(name), name in record.failures, pending)
    if not is_about_quality(info):
        return value
    return " ".join(filter(None, (value, difference if with_intervals else difference.partition(" ")[0])))


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Return how wide a table is, the gap behind its last column included."""
    return sum(width + GAP for width in _widths(rows))


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _lines(rows: Sequence[Sequence[str]]) -> Text:
    """Return a table that fits; rich would look for places to break every cell, which takes long for many rows."""
    widths = _widths(rows)
    lines = [(" " * GAP).join(map(set_cell_size, row, widths)) for row in rows]
    text = Text("\n".join(lines))
    text.stylize("bold", 0, len(lines[0]))
    return text


def _table(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(Text(name), overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(cell) for cell in row))
    return table
