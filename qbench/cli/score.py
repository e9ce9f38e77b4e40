"""``qbench score``."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbench.cli.options import JsonOption

if TYPE_CHECKING:
    from qbench.score_request import Request
    from qbench.scoring import Scored, Started

SHOWN_DIGITS = 12
"""How much of a digest is shown to people."""


def score(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="A folder of images of one size, or an .npz or .npy file of them.")
    ],
    metrics: Annotated[
        list[str], typer.Option(metavar="ID,...", help="Metrics, separated by commas; `qbench metrics list` has them.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(metavar="REF", help="Real images like IMAGES, or statistics of them (.npz or .safetensors)."),
    ] = None,
    full_precision: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Full-precision images of the same noise, for metrics that end in -to-fp."),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text file with one caption a line, in the order of names.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images at a time; 125 by default on a CPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METRIC.KEY=VALUE", help="A setting of a metric, written as in YAML."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any images. Exit code 1 if a figure failed; the others are printed all the same."""
    values = _values(settings)
    from qbench import score_request, scoring
    from qbench.stages.stage import Runtime

    runtime = Runtime(device, batch_size)
    if device != "auto":
        runtime.torch_device()
    chosen = score_request.make_metrics(
        [name.strip() for each in metrics for name in each.split(",") if name.strip()], values
    )
    try:
        request = score_request.open_request(chosen, images, reference, full_precision, captions)
        with _progress() as started:
            found = scoring.score(request, runtime, started)
    except KeyboardInterrupt:
        print("\nqbench: stopped; nothing is kept", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(_summary(request, found), indent=1))
    else:
        _print(request, found)
    failed = sum(each.value is None for each in found)
    if failed:
        typer.echo(f"{failed} of {len(found)} figures failed", err=True)
    raise typer.Exit(1 if failed else 0)


def _values(texts: Sequence[str] | None) -> dict[str, Any]:
    from qbench.yaml_file import parse_value

    values: dict[str, Any] = {}
    for text in texts or []:
        key, _, value = text.partition("=")
        if not key or not value:
            raise typer.BadParameter(f"--set {text}: write METRIC.KEY=VALUE")
        if key in values:
            raise typer.BadParameter(f"--set {key}: given twice")
        values[key] = parse_value(value)
    return values


@contextmanager
def _progress() -> "Iterator[Started]":
    """Show a bar on a terminal and a line in a log, on standard error."""
    if not sys.stderr.isatty():
        yield _say
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:

        def started(what: str, count: int) -> Callable[[float], None]:
            return partial(bars.advance, bars.add_task(escape(what), total=count))

        yield started


def _say(what: str, count: int) -> Callable[[float], None]:
    print(f"{what}, {_counted(count, 'image')}", file=sys.stderr, flush=True)
    return lambda amount: None


def _summary(request: "Request", found: "Sequence[Scored]") -> dict[str, object]:
    figures = [
        {
            "metric": each.metric,
            "samples": each.samples,
            "value": each.value,
            "failure": each.failure,
            "info": None if each.info is None else each.info.model_dump(mode="json"),
        }
        for each in found
    ]
    return {**request.describe(), "figures": figures}


def _print(request: "Request", found: "Sequence[Scored]") -> None:
    for what, described in request.describe().items():
        if described is not None:
            parts = [described["name"], *(_fact(key, fact) for key, fact in described.items() if key != "name")]
            typer.echo(f"{what.replace('_', ' ')}: {', '.join(parts)}")
    typer.echo()
    width = max(len(each.metric) for each in found)
    for each in found:
        if each.value is None or each.info is None:
            typer.echo(f"{each.metric:{width}}  failed: {each.failure}")
        else:
            text = f"{each.value:.6g}"
            samples = _counted(each.samples, "sample")
            typer.echo(f"{each.metric:{width}}  {text:>12}  {each.info.direction} is better, {samples}")
    for each in found:
        if each.value is not None and each.info is not None:
            typer.echo(f"\n{each.metric}: {each.info.title}; {each.info.protocol}")
            extractor = each.info.description["extractor"]
            if extractor is not None:
                weights = (f"{name} {digest[:SHOWN_DIGITS]}" for name, digest in extractor["weights"].items())
                typer.echo(f"  extractor {', '.join((extractor['name'], *weights))}")
            if each.info.caveat:
                typer.echo(f"  {each.info.caveat}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _fact(key: str, fact: Any) -> str:
    return f"{fact:,} {key}" if isinstance(fact, int) else f"digest of {key} {str(fact)[:SHOWN_DIGITS]}"
