"""``qbench suites``."""

import json

import typer

from qbench.cli.catalogues import NameArgument
from qbench.cli.options import JsonOption

app = typer.Typer(help="List installed suites or show one.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """List the suites that come with qbench. `qbench run NAME` runs one anywhere."""
    from qbench.suite import installed_suites
    from qbench.yaml_file import read_yaml

    titles = {name: str(read_yaml(path).data.get("title", "")) for name, path in installed_suites().items()}
    if as_json:
        typer.echo(json.dumps(titles, indent=1))
        return
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        typer.echo(f"{name:{width}}  {title}")


@app.command("show")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show a suite's cells and what is measured."""
    from qbench.suite import find_suite, load_suite

    suite = load_suite(find_suite(name))
    if as_json:
        cells = [{"cell": cell.id, "digest": cell.digest, **cell.describe()} for cell in suite.cells]
        typer.echo(json.dumps({"name": suite.name, "title": suite.title, "cells": cells}, indent=1))
        return
    typer.echo(f"{suite.name}: {suite.title} ({suite.path})")
    for cell in suite.cells:
        boundary = "" if cell.boundary_bits is None else f", first and last layer {cell.boundary_bits} bits"
        typer.echo(
            f"  {cell.id}: {cell.samples} samples, {cell.workload.sampler.steps} steps{boundary}; "
            f"{', '.join(metric.name for metric in cell.metrics)}"
        )
