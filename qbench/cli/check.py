"""``qbench check``."""

import json

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, OnlyOption, ResultsOption, SetOption, StandinOption, SuiteArgument

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
    chosen = options.load(suite, only, overrides, standin)
    from qbench.results.completeness import state_of_cells

    states = state_of_cells(chosen, results / chosen.name)
    counts = {state: sum(each.state == state for each in states) for state in ("complete", "failed", "missing")}
    if as_json:
        cells = [{"cell": each.cell, "state": each.state, "reason": each.reason} for each in states]
        typer.echo(json.dumps({**counts, "cells": cells}, indent=1))
    else:
        for each in states:
            if each.state != "complete":
                typer.echo(f"{each.cell}: {each.state}" + (f" ({each.reason})" if each.reason else ""))
        typer.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    raise typer.Exit(1 if counts["failed"] else INCOMPLETE if counts["missing"] else 0)
