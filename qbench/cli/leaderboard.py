"""``qbench leaderboard``."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, StoreOption
from qbench.errors import ResultsError

if TYPE_CHECKING:
    from qbench.results.collecting import StoreOverlay

MANY_RECORDS = 500
"""From so many on, several processes share the work."""


def leaderboard(
    results: Annotated[Path, typer.Argument(help="Folder of results.", metavar="RESULTS")] = options.RESULTS,
    collect: Annotated[
        bool,
        typer.Option("--collect", help="While a run is going on, show what it has finished; no record is written."),
    ] = False,
    store: StoreOption = None,
    published: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Folder of published figures, in place of suites/published and the installed ones."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Regenerate all tables and the page from the records. They are byte-identical when nothing changed."""
    if store is not None and not collect:
        raise typer.BadParameter("--store: only --collect looks into the store")
    for option, folder in [("--store", store), *(("--published", each) for each in published or [])]:
        if folder is not None and not folder.is_dir():
            raise ResultsError(f"{option} {folder}: no such folder")
    from qbench.results.leaderboard import regenerate

    overlay = _overlay(store) if collect else None
    made = regenerate(results, published, overlay, _processes(results))
    problems = [*made.problems, *(sorted(set(overlay.damaged)) if overlay else [])]
    counts = {suite: dict(states) for suite, states in made.states.items()} if collect else {}
    if as_json:
        found = {"suites": made.suites, "problems": problems}
        typer.echo(json.dumps(found | ({"cells": counts} if collect else {}), indent=1))
    else:
        typer.echo(f"{results}/README.md: {', '.join(made.suites)}")
        for suite, states in counts.items():
            typer.echo(f"{suite}: {', '.join(f'{count} {state}' for state, count in states.items())}")
        for problem in problems:
            typer.echo(problem, err=True)
    raise typer.Exit(1 if problems else 0)


def _processes(results: Path) -> int:
    """Return how many processes are worth their start."""
    records = sum(1 for _ in zip(results.glob("*/records/*.json"), range(MANY_RECORDS), strict=False))
    return (os.cpu_count() or 1) if records == MANY_RECORDS else 1


def _overlay(store: Path | None) -> "StoreOverlay":
    from qbench.results.collecting import StoreOverlay

    return StoreOverlay(options.open_store(store, read_only=True))
