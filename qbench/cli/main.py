"""The entry point ``qbench``. Commands import what they need when they run, so that help answers at once."""

import gc
import io
import sys

import typer

from qbench.cli import catalogues, check, diff, doctor, export, fetch, leaderboard, plan, run, score, store, suites
from qbench.errors import QbenchError, place_error
from qbench.secrets import without_secrets

OBJECTS_UNTIL_COLLECTED = 20_000
"""What a plan or a table consists of lives as long as the command: looking for garbage in it more often finds none."""

app = typer.Typer(
    name="qbench",
    help="Measure what quantization does to diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich for it would take longer than everything else
    add_completion=False,
)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("check")(check.check)
app.command("diff")(diff.diff)
app.command("fetch")(fetch.fetch)
app.command("score")(score.score)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("export")(export.export)
app.add_typer(catalogues.methods, name="methods")
app.add_typer(catalogues.workloads, name="workloads")
app.add_typer(catalogues.metrics, name="metrics")
app.add_typer(suites.app, name="suites")
app.add_typer(store.app, name="store")
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from qbench import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: 0 done, 1 a problem told in one sentence, 2 wrong usage, 3 incomplete, 130 Ctrl-C."""
    gc.set_threshold(OBJECTS_UNTIL_COLLECTED)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign shows another, and the run ends well
    try:
        app()
    except (QbenchError, OSError) as error:
        told = place_error(error) if isinstance(error, OSError) else error
        if told is None:
            raise
        print(f"qbench: {without_secrets(str(told))}", file=sys.stderr)
        sys.exit(1)
