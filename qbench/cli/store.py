"""``qbench store``."""

import json
from collections import Counter
from typing import Annotated

import typer

from qbench.cli.options import JsonOption, StoreOption, open_store

app = typer.Typer(help="Look after the store of cached work.", no_args_is_help=True, rich_markup_mode=None)


@app.command("ls")
def list_artefacts(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List what the store holds, by kind."""
    from qbench.store import entries

    opened = open_store(store)
    found = entries(opened)
    if as_json:
        typer.echo(json.dumps([vars(entry) for entry in found], indent=1))
        return
    sizes: Counter[str] = Counter()
    for entry in found:
        sizes[entry.kind] += entry.bytes
    for kind, size in sorted(sizes.items()):
        typer.echo(f"{kind:12} {sum(entry.kind == kind for entry in found):6}  {size / 1e6:10.2f} MB")
    typer.echo(f"{opened.root}: {len(found)} artefacts, {sum(sizes.values()) / 1e6:.2f} MB")


@app.command("gc")
def collect(
    store: StoreOption = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Also remove artefacts of at least this age.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what nobody needs. That is what was left half-written or set aside and, if asked, what is old."""
    from qbench.store import collect_garbage

    freed = collect_garbage(open_store(store), older_than)
    typer.echo(json.dumps({"freed_bytes": freed}) if as_json else f"{freed / 1e6:.2f} MB became free")


@app.command("verify")
def verify_artefacts(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Compare every artefact with its digests. Sets the damaged aside; exit code 1 if there were any."""
    from qbench.store import verify

    result = verify(open_store(store))
    if as_json:
        typer.echo(json.dumps({"sound": result.sound, "damaged": result.damaged}, indent=1))
    else:
        for reason in result.damaged:
            typer.echo(f"set aside: {reason}")
        typer.echo(f"{result.sound} sound, {len(result.damaged)} damaged")
    raise typer.Exit(1 if result.damaged else 0)
