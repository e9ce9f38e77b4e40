"""``qbench methods``, ``qbench workloads`` and ``qbench metrics``."""

import inspect
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbench.cli.options import JsonOption
from qbench.plugins import METHODS, METRICS, WORKLOADS, Catalogue

if TYPE_CHECKING:
    from qbench.plugin import Plugin

FACTS = ("direction", "protocol", "caveat")
"""What metrics tell of themselves; settings may enter a protocol, so that the default's is told."""
NameArgument = Annotated[str, typer.Argument(metavar="NAME")]
ToOption = Annotated[
    Path | None, typer.Option("--to", metavar="DIR", help="A new or empty folder; one called NAME, here, by default.")
]


def _make(catalogue: Catalogue) -> typer.Typer:
    app = typer.Typer(
        help=f"List {catalogue.kind}s, show one, or begin a new one.", no_args_is_help=True, rich_markup_mode=None
    )

    @app.command("list", help=f"List the {catalogue.kind}s that are installed. Imports none of them.")
    def list_all(as_json: JsonOption = False) -> None:
        entries = catalogue.entries()
        if as_json:
            typer.echo(json.dumps([vars(entry) for entry in entries], indent=1))
            return
        width = max((len(entry.name) for entry in entries), default=0)
        names = [entry.name for entry in entries]
        for entry in entries:
            clash = "  (offered twice: uninstall one)" if names.count(entry.name) > 1 else ""
            typer.echo(f"{entry.name:{width}}  {entry.package} {entry.version}{clash}")

    @app.command("show", help=f"Show one {catalogue.kind}. Tells what it is, its paper and its settings.")
    def show(name: NameArgument, as_json: JsonOption = False) -> None:
        from qbench.plugin import blaming, load_class
        from qbench.settings import describe

        found = load_class(catalogue, name, _contract(catalogue.kind))
        entry = catalogue.entry(name)
        with blaming(f"the {catalogue.kind} {name!r}"):
            settings = describe(found.settings_class())
            plain = found(entry, found.settings_class())
        facts = {
            "title": found.title,
            "paper": found.paper,
            "package": f"{entry.package} {entry.version}",
            "revision": str(found.revision),
            **{fact: str(getattr(plain, fact)) for fact in FACTS if hasattr(plain, fact)},
        }
        facts = {fact: text for fact, text in facts.items() if text}
        about, presets = inspect.cleandoc(found.__doc__ or ""), getattr(found, "presets", {})
        if as_json:
            keys = ("name", "type", "default", "description")
            rows = [dict(zip(keys, row, strict=True)) for row in settings]
            shown = {"name": name, **facts, "about": about, "presets": presets, "settings": rows}
            typer.echo(json.dumps(shown, indent=1, default=dict))
            return
        typer.echo(name)
        for fact, text in facts.items():
            typer.echo(f"  {fact}: {text}")
        if about:
            typer.echo(f"\n{indent(about, '  ')}\n")
        for preset, changes in presets.items():
            told = [f"{field} {value}" for field, value in _dotted(changes)] or ["the defaults"]
            typer.echo(f"  preset {preset}: {', '.join(told)}")
        typer.echo("  settings:" if settings else "  settings: none")
        for setting, kind, default, description in settings:
            typer.echo(f"    {setting} ({kind}, default {default}): {description}")

    @app.command("new", help=f"Write a ready package with a {catalogue.kind} of one's own that works, and its test.")
    def new(name: NameArgument, to: ToOption = None, as_json: JsonOption = False) -> None:
        from qbench.testing.new_package import write_package

        package = write_package(catalogue, name, Path(name) if to is None else to)
        if as_json:
            shown = {"name": name, "folder": str(package.folder), "files": [path.as_posix() for path in package.files]}
            typer.echo(json.dumps(shown, indent=1))
            return
        for path in package.files:
            typer.echo(package.folder / path)
        typer.echo(
            f"Install it with `pip install -e {shlex.quote(str(package.folder))}`; its README.md says how to go on."
        )

    return app


def _dotted(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the innermost values of nested settings under dotted names."""
    for name, value in changes.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _contract(kind: str) -> "type[Plugin]":
    from qbench.method import Method
    from qbench.metrics.metric import Metric
    from qbench.workload import Workload

    return {"method": Method, "metric": Metric, "workload": Workload}[kind]


methods = _make(METHODS)
workloads = _make(WORKLOADS)
metrics = _make(METRICS)
