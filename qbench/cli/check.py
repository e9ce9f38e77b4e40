"""``qbench check``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, OnlyOption, ResultsOption, SetOption, StandinOption, SuiteArgument
from qbench.errors import QbenchError

if TYPE_CHECKING:
    from qbench.results.completeness import Completeness

INCOMPLETE = 3


def check(
    suite: SuiteArgument,
    results: ResultsOption = options.RESULTS,
    only: OnlyOption = None,
    overrides: SetOption = None,
    standin: StandinOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether a suite's results are there. Exit code 0: complete, 3: incomplete, 1: failures or an error."""
    try:
        found = _completeness(suite, results, only, overrides, standin)
    except QbenchError as error:
        if as_json:
            typer.echo(json.dumps({"error": str(error)}, indent=1))
        raise
    counts = {state: sum(each.state == state for each in found.cells) for state in ("complete", "failed", "missing")}
    if as_json:
        cells = [{"cell": each.cell, "state": each.state, "reason": each.reason} for each in found.cells]
        typer.echo(json.dumps({**counts, "cells": cells, "problems": found.problems}, indent=1))
    else:
        for each in found.cells:
            if each.state != "complete":
                typer.echo(f"{each.cell}: {each.state}" + (f" ({each.reason})" if each.reason else ""))
        typer.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
        for problem in found.problems:
            typer.echo(problem, err=True)
    raise typer.Exit(1 if counts["failed"] else INCOMPLETE if counts["missing"] else 0)


def _completeness(
    name: str, results: Path, only: list[str] | None, overrides: list[str] | None, standin: bool
) -> "Completeness":
    chosen = options.load(name, only, overrides, standin)
    from qbench.results.completeness import completeness

    return completeness(chosen, results / chosen.name)
