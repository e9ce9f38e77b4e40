"""``qbench fetch``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, OnlyOption, SetOption, StandinOption

if TYPE_CHECKING:
    from pathlib import Path

    from qbench.suite import Suite
    from qbench.suite_assets import Wanted, Wants


@dataclass(frozen=True)
class _Outcome:
    """What became of an asset; the failure is empty if it is there now."""

    wanted: Wanted
    state: str
    failure: str = ""
    remark: str = ""


def fetch(
    suite: Annotated[
        str | None, typer.Argument(metavar="SUITE", help="A suite file, or the name of an installed one.")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,...", help="In place of a suite: metrics whose weights are wanted."),
    ] = None,
    only: OnlyOption = None,
    overrides: SetOption = None,
    standin: StandinOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what is there and what is missing; uses no network.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download what a suite needs: checkpoints, weights of metrics, real images. What is there is not fetched again.

    What breaks off goes on where it was. Everything is checked before it gets its name. Exit code 1 if something is
    still missing at the end.
    """
    if (suite is None) == (metrics is None):
        raise typer.BadParameter("name a suite, or metrics with --metrics, and not both")
    if suite is not None:
        from qbench.suite_assets import suite_wants

        needed = suite_wants(options.load(suite, only, overrides, standin))
    else:
        if only or standin:
            raise typer.BadParameter("--only and --standin change a suite, and no suite is named")
        needed = _of_metrics(metrics or [], overrides)
    if dry_run:
        _show(needed, as_json)
        return
    try:
        outcomes = _fetched(needed)
    except KeyboardInterrupt:
        print("\nqbench: stopped; what has come is kept, run the same command to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    failed = [each for each in outcomes if each.failure]
    if as_json:
        rows = [{**_row(each.wanted, each.state), "failure": each.failure or None} for each in outcomes]
        typer.echo(json.dumps({"assets": rows, "problems": needed.problems}, indent=1))
    else:
        for each in outcomes:
            if not each.failure:
                typer.echo(f"{each.wanted.asset.name}: {each.state}, {each.wanted.asset.find()}")
    for each in outcomes:
        if each.remark:
            typer.echo(each.remark, err=True)
    for failure in (*(f"{each.wanted.asset.name}: {each.failure}" for each in failed), *needed.problems):
        typer.echo(f"failed: {failure}", err=True)
    if not as_json:
        count = len(outcomes)
        typer.echo(f"{count - len(failed)} of {count} are here" if count else "nothing has to be fetched")
    raise typer.Exit(1 if failed or needed.problems else 0)


def _of_metrics(metrics: Sequence[str], overrides: list[str] | None) -> Wants:
    from qbench.score_request import make_metrics
    from qbench.suite_assets import wants
    from qbench.yaml_file import parse_value

    names = [name.strip() for each in metrics for name in each.split(",") if name.strip()]
    settings = {key: parse_value(text) for key, text in options.pairs("--set", overrides)}
    return wants((), make_metrics(names, settings))


def tell_missing(suite: Suite, argument: str) -> None:
    """Refuse a suite whose workloads lack something, and say on standard error what metrics lack.

    Args:
        suite: what is to be planned or run.
        argument: how the command line named it.

    Raises:
        DataError: a workload lacks something; all that is missing is listed, with the command that gets it.
    """
    from qbench.suite_assets import check_assets

    words = ["qbench", "fetch", argument, *(["--standin"] if suite.standins else [])]
    told = check_assets(suite, shlex.join(words))
    if told:
        print(f"qbench: {told}", file=sys.stderr)


def _fetched(needed: Wants) -> list[_Outcome]:
    """Fetch one after the other; what fails keeps nothing else from being fetched."""
    from qbench.cli.download_progress import download_progress
    from qbench.errors import DataError

    outcomes = []
    with download_progress() as begin:
        for wanted in needed.wanted:
            if wanted.asset.find() is not None:
                outcomes.append(_Outcome(wanted, "here"))
                continue
            try:
                remark = wanted.asset.fetch(begin(wanted.asset) if wanted.asset.is_fetchable else lambda *_: None)
                wanted.asset.require()
            except DataError as error:
                outcomes.append(_Outcome(wanted, "missing", failure=str(error)))
            else:
                outcomes.append(_Outcome(wanted, "fetched", remark=remark))
    return outcomes


def _show(needed: Wants, as_json: bool) -> None:
    from qbench.suite_assets import total_text

    states = [(each, "missing" if each.asset.find() is None else "here") for each in needed.wanted]
    missing = [each.asset for each, state in states if state == "missing" and each.asset.is_fetchable]
    folders = _disks([each.asset.source.folder for each in needed.wanted])
    if as_json:
        shown = {
            "assets": [_row(each, state) for each, state in states],
            "missing_bytes": sum(asset.size or 0 for asset in missing),
            "of_unknown_size": sum(asset.size is None for asset in missing),
            "free_bytes": {str(folder): free for folder, free in folders.items()},
            "problems": needed.problems,
        }
        typer.echo(json.dumps(shown, indent=1))
        return
    if states:
        _print_table(states)
    from qbench.workloads.disk_space import size_text

    typer.echo(f"to fetch: {total_text(missing)}" if missing else "nothing has to be fetched")
    for folder, free in folders.items():
        typer.echo(f"{size_text(free)} free where {folder} lies")
    for wanted, state in states:
        if state == "missing" and not wanted.asset.is_fetchable:
            typer.echo(f"by hand: {wanted.asset.lack()}")
    for problem in needed.problems:
        typer.echo(f"failed: {problem}", err=True)


def _print_table(states: Sequence[tuple[Wanted, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from qbench.cli.tables import LOG_WIDTH
    from qbench.workloads.disk_space import size_text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("what", "size", "from", "for", "state"):
        table.add_column(name, overflow="fold")
    for wanted, state in states:
        asset = wanted.asset
        cells = (asset.name, size_text(asset.size), asset.source.origin, ", ".join(wanted.users), state)
        table.add_row(*map(Text, cells))
    console = Console()
    (console if console.is_terminal else Console(width=LOG_WIDTH)).print(table)


def _row(wanted: Wanted, state: str) -> dict[str, Any]:
    found = wanted.asset.find()
    return {
        "name": wanted.asset.name,
        "size": wanted.asset.size,
        "from": wanted.asset.source.origin,
        "for": wanted.users,
        "state": state,
        "path": None if found is None else str(found),
    }


def _disks(folders: Sequence[Path | None]) -> dict[Path, int]:
    """Return what is free on each disk that something comes to, by one of the folders on it."""
    from qbench.workloads.disk_space import existing_folder, free_bytes

    found: dict[int, tuple[Path, int]] = {}
    for folder in folders:
        if folder is not None:
            found.setdefault(existing_folder(folder).stat().st_dev, (folder, free_bytes(folder)))
    return dict(found.values())
