"""Tables on the terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qbench.records import Record
from qbench.results.markdown import ARROW, figure_text

LOG_WIDTH = 160
"""Width where nobody reads on a terminal."""


def print_records(records: Sequence[Record]) -> None:
    """Print one row for each cell."""
    metrics = {name: info for record in records for name, info in record.metrics.items()}
    header = ["workload", "method", "bits", "seed", "MB", "MACs"]
    for name, info in metrics.items():
        header.append(f"{name} {ARROW[info.direction]}")
    rows = []
    for record in records:
        profile = record.profile
        row = [record.workload, record.label, record.bits, str(record.seed)]
        row += [f"{profile.size_mb:.2f}", f"{100 * profile.coverage_macs:.0f} %"] if profile else ["-", "-"]
        for name, info in metrics.items():
            value, difference = figure_text(
                record.figures.get(name), name in record.failures, record.status == "pending"
            )
            about_quality = not info.against.startswith("full-precision")
            row.append(f"{value}  {difference}" if difference and about_quality else value)
        rows.append(row)
    print_table(header, rows)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; cells are text and never markup."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
