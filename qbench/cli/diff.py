"""``qbench diff``."""

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, ResultsOption
from qbench.errors import QbenchError, ResultsError, place_error
from qbench.secrets import without_secrets

if TYPE_CHECKING:
    from qbench.results.differences.compare import AnyDifference

ERROR = 2
SideArgument = Annotated[
    str,
    typer.Argument(
        metavar="A",
        help="A record, SUITE/CELL or SUITE of the results, a folder of results, or an artefact: its folder or how "
        "its digest begins.",
    ),
]
OtherArgument = Annotated[str, typer.Argument(metavar="B", help="Another one of the same kind.")]


def diff(
    first: SideArgument,
    second: OtherArgument,
    results: ResultsOption = options.RESULTS,
    store: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Store of A and B; given twice, of A and of B. $QBENCH_STORE or the user's cache by default.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Figures that agree to this share of them are the same."),
    ] = 1e-6,
    as_json: JsonOption = False,
) -> None:
    """Compare two cells, two folders of results or two artefacts. Exit code 0: the same, 1: they differ, 2: an error.

    Versions, hardware and seconds alone do not make them differ, nor does a figure within its interval.
    """
    from qbench.results.differences.folders import FolderDifference

    try:
        found = _compare(first, second, results, store or [], tolerance)
    except Exception as error:  # a defect, too, must not be read as "they differ"
        told = place_error(error) if isinstance(error, OSError) else error
        if not isinstance(told, QbenchError):
            traceback.print_exc()
            raise typer.Exit(ERROR) from None
        if as_json:
            typer.echo(json.dumps({"error": without_secrets(str(told))}, indent=1))
        print(f"qbench: {without_secrets(str(told))}", file=sys.stderr)
        raise typer.Exit(ERROR) from None
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1, allow_nan=False))
    else:
        from qbench.cli.differences import lines_of

        for line in lines_of(found):
            typer.echo(line)
    undecided = isinstance(found, FolderDifference) and found.is_undecided
    raise typer.Exit(0 if found.is_same else ERROR if undecided else 1)


def _compare(first: str, second: str, results: Path, stores: list[Path], tolerance: float) -> "AnyDifference":
    if len(stores) > 2:
        raise ResultsError(f"--store is given {len(stores)} times: one for both sides, or one for each")
    for folder in stores:
        if not folder.is_dir():
            raise ResultsError(f"--store {folder}: no such folder")
    from qbench.results.differences.compare import compare

    places: list[Path | None] = [*stores] or [None]
    opened = [options.open_store(place, read_only=True) for place in places]
    return compare(first, second, results, (opened[0], opened[-1]), tolerance)
