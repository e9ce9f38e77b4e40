"""``qbench export``."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, ResultsOption, SetOption, StoreOption

if TYPE_CHECKING:
    from qbench.export.cell import FoundCell
    from qbench.export.write import Written


def export(
    cell: Annotated[
        str,
        typer.Argument(
            metavar="CELL", help="SUITE/CELL of the results, the file of a record, or a cell that one suite only has."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A folder that does not exist or is empty.")],
    results: ResultsOption = options.RESULTS,
    store: StoreOption = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", metavar="SUITE", help="The cell's suite, if it is not where `qbench run` was started."),
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a cell's packed model as a folder that qbench.load_quantized loads as a pipeline of diffusers."""
    from qbench.export.cell import Request, find_cell
    from qbench.export.folder import check_is_free
    from qbench.yaml_file import parse_value

    check_is_free(to)
    words = [] if results == options.RESULTS else ["--results", str(results)]
    words += [] if store is None else ["--store", str(store)]
    values = {key: parse_value(text) for key, text in options.pairs("--set", overrides)}
    found = find_cell(cell, Request(results, suite or "", values, words), options.open_store(store, read_only=True))
    from qbench.export.write import export_cell

    try:
        written = export_cell(found, to)
    except KeyboardInterrupt:
        print("\nqbench: stopped; nothing was written", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(_summary(found, written), indent=1))
    else:
        _print(found, written)


def _summary(found: "FoundCell", written: "Written") -> dict[str, object]:
    return {
        "path": str(written.path),
        "cell": found.cell.id,
        "suite": found.record.suite.name,
        "weights_bytes": written.weights_bytes,
        "total_bytes": written.total_bytes,
        "files": dict(written.files),
    }


def _print(found: "FoundCell", written: "Written") -> None:
    sizes = f"{written.weights_bytes / 1e6:.2f} MB of weights, {written.total_bytes / 1e6:.2f} MB in all"
    typer.echo(f"{found.cell.id} is in {written.path}: {sizes}")
    typer.echo("import qbench")
    typer.echo(f"pipeline = qbench.load_quantized({str(written.path)!r})")
