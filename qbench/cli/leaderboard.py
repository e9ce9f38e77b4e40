"""``qbench leaderboard``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption


def leaderboard(
    results: Annotated[Path, typer.Argument(help="Folder of results.", metavar="RESULTS")] = options.RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Regenerate all tables from the records. They are byte-identical when nothing changed."""
    from qbench.results.leaderboard import regenerate

    made = regenerate(results)
    if as_json:
        typer.echo(json.dumps({"suites": made.suites, "problems": made.problems}, indent=1))
    else:
        typer.echo(f"{results}/README.md: {', '.join(made.suites)}")
        for problem in made.problems:
            typer.echo(problem, err=True)
    raise typer.Exit(1 if made.problems else 0)
