"""The tables of a suite in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from qbench.records import MetricInfo, Record
from qbench.results import notes
from qbench.results.best import Contest
from qbench.results.pareto import drawn_metric
from qbench.results.table_layout import cells_table, seeds_table
from qbench.results.table_model import Cell, Change, Column, Spread, Table, Value
from qbench.results.verdict_table import PublishedTable, letter, published_table
from qbench.results.verdicts import Verdict
from qbench.results.wording import (
    ARROW,
    INCONCLUSIVE,
    cell_text,
    change_text,
    conditions,
    picture_file,
    spread_parts,
    value_text,
)


def suite_markdown(
    records: Sequence[Record],
    metrics: Mapping[str, MetricInfo],
    outdated: Sequence[Record] = (),
    contests: Sequence[Contest] = (),
    verdicts: Sequence[Verdict] = (),
) -> str:
    """Return headline, tables for each workload, failures with their reasons, and what the columns stand for.

    Args:
        records: of one suite.
        metrics: what the columns stand for.
        outdated: records that are only named, since they do not belong to the full precision of the table.
        contests: whose winners are marked.
        verdicts: on published figures.
    """
    if not records:
        return "No records.\n"
    parts = [f"# {escaped(records[0].suite.title)}"]
    ordered = sorted(records, key=lambda record: record.workload)
    for workload, group in groupby(ordered, key=lambda record: record.workload):
        parts += [f"## {escaped(workload)}", *_workload(list(group), metrics, contests, verdicts)]
    parts += _listed("Failed:", notes.failed_cells(records))
    parts += _listed("Not run to the end:", notes.cells_to_come(records))
    parts += _listed("Left in full precision:", notes.layers_left_out(records))
    parts += _listed("Not compared with other rows of these bits:", notes.rows_that_do_not_compete(contests))
    if outdated:
        names = ", ".join(escaped(cell_text(record)) for record in outdated)
        parts.append(
            "Not shown, sampled in another way than this table or compared with another full precision; "
            f"run the suite again: {names}."
        )
    below = [*notes.column_notes(records, metrics), *notes.row_notes(records, metrics, contests)]
    parts.append(
        "\n".join(
            f"- **{escaped(note.term)}** {escaped(note.text)}" if note.term else item(note.text) for note in below
        )
    )
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table; what is best stands in bold."""
    return markdown_rows(table.columns, [[markdown_cell(cell) for cell in row.cells] for row in table.rows])


def markdown_rows(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells are Markdown already."""
    head = [_head(column) for column in columns]
    alignment = ["---" if column.is_words else "---:" for column in columns]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, alignment, *rows])


def markdown_cell(cell: Cell) -> str:
    """Return a cell of a table."""
    match cell:
        case Value():
            text = value_text(cell.number)
            return f"**{text}**" if cell.is_best else text
        case Change():
            text = change_text(cell.delta, cell.low, cell.high)
            if cell.interval_only:
                return text.partition(" ")[2]
            return f"{text} {INCONCLUSIVE}" if cell.is_inconclusive else text
        case Spread():
            sign = "+" if cell.is_difference else ""
            mean, interval, rest = spread_parts(cell.values, cell.seeds, sign, cell.interval)
            told = f"{interval} {INCONCLUSIVE}" if cell.is_inconclusive else interval
            return (f"**{mean}**" if cell.is_best else mean) + told + rest
        case _:
            return escaped(cell)


def escaped(text: str) -> str:
    """Return a text of which Markdown and HTML read nothing but text, in one line."""
    harmless = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = " ".join(re.sub(r"([\\|`*\[\]~$])", r"\\\1", harmless).split())
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # one inside a word means nothing


def item(text: str) -> str:
    """Return a line of a list whose text begins nothing else."""
    return "- " + re.sub(r"^(?=[#+=>-])|(?<=^\d)(?=[.)])", r"\\", escaped(text))


def link(text: str, target: str) -> str:
    """Return a link to a file beside the document."""
    return f"[{escaped(text)}]({re.sub(r'[^A-Za-z0-9_./+-]', lambda each: _percent(each.group()), target)})"


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", errors="replace"))


def _workload(
    records: Sequence[Record],
    metrics: Mapping[str, MetricInfo],
    contests: Sequence[Contest],
    verdicts: Sequence[Verdict],
) -> Iterable[str]:
    workload = records[0].workload
    own = [contest for contest in contests if contest.workload == workload]
    yield escaped(conditions(records))
    over_seeds = seeds_table(records, metrics, own)
    if over_seeds is not None:
        yield "Mean over seeds (lowest to highest):"
        yield markdown_table(over_seeds)
        yield "Each seed:"
    yield markdown_table(cells_table(records, metrics, own, verdicts))
    if any(record.curve is not None for record in records):
        yield _picture("Error against full precision at each step", "curves", workload)
    if drawn_metric(records, metrics) is not None:
        yield _picture("Quality against size", "pareto", workload)
    published = published_table(records, verdicts)
    if published is not None:
        yield from _published(published)


def _picture(title: str, kind: str, workload: str) -> str:
    path = f"media/{picture_file(kind, workload)}"
    return f"{title}: {link(path, path)}."


def _published(published: PublishedTable) -> Iterable[str]:
    yield "Published figures, which were not measured here:"
    if published.table.rows:
        yield markdown_table(published.table)
    lines = [f"{place}: {source}" for place, source in enumerate(published.sources, start=1)]
    lines += [f"({letter(place)}) {reason}" for place, reason in enumerate(published.reasons)]
    if lines:
        yield "\n".join(item(f"{line}.") for line in lines)
    if published.not_run:
        yield escaped(f"Published, and not run here: {'; '.join(published.not_run)}.")


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"{title}\n\n" + "\n".join(map(item, sentences))] if sentences else []


def _head(column: Column) -> str:
    return escaped(column.title) + (f" {ARROW[column.direction]}" if column.direction else "")
