"""``qbench doctor``."""

import json
from dataclasses import asdict

import typer

from qbench.cli.options import JsonOption, StoreOption


def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show what this machine can run. Exit code 1 if something that is needed does not work."""
    from qbench.diagnosis import examine
    from qbench.store import default_store_path

    findings = examine(store or default_store_path())
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=1))
    else:
        for each in findings:
            typer.echo(f"{'ok  ' if each.ok else 'FAIL'}  {each.what}: {each.found}")
    raise typer.Exit(0 if all(each.ok for each in findings) else 1)
