"""``qbench plan``."""

import json
from collections import Counter

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, OnlyOption, SetOption, StoreOption, SuiteArgument


def plan(
    suite: SuiteArgument,
    store: StoreOption = None,
    only: OnlyOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a suite would run, what of it is cached, and what the rest will cost."""
    chosen = options.load(suite, only, overrides)
    from qbench.estimate import Rates
    from qbench.plan import make_plan

    made = make_plan(chosen.cells)
    opened = options.open_store(store)
    missing = made.missing(opened)
    cost = Rates.of_store(opened).estimate(missing.values())
    total, needed = (Counter(stage.kind for stage in each.values()) for each in (made.stages, missing))
    if as_json:
        cells = [{"cell": each.cell.id, "digest": each.cell.digest} for each in made.cells]
        stages = {kind: {"total": total[kind], "to_compute": needed[kind]} for kind in total}
        estimate = {"seconds": cost.seconds, "peak_memory_mb": cost.peak_memory_mb}
        typer.echo(json.dumps({"cells": cells, "stages": stages, "estimate": estimate}, indent=1))
        return
    typer.echo(f"{chosen.title}: {len(made.cells)} cells")
    for each in made.cells:
        done = not any(target.digest in missing for target in each.targets)
        typer.echo(f"  {each.cell.id:48} {'cached' if done else 'to run'}")
    for kind in total:
        typer.echo(f"{kind:12} {needed[kind]:6} to compute, {total[kind] - needed[kind]:6} cached or not needed")
    typer.echo(_sentence(cost.seconds, cost.peak_memory_mb, cost.unknown_kinds, bool(missing)))


def _sentence(seconds: float | None, peak: float | None, unknown: tuple[str, ...], anything: bool) -> str:
    from qbench.cli.progress import duration

    if not anything:
        return "nothing to compute"
    if seconds is None:
        return f"no estimate: nothing of the kind was computed in this store before ({', '.join(unknown)})"
    memory = "" if peak is None else f", at most {peak / 1000:.1f} GB of memory"
    return f"about {duration(seconds)}{memory}, judged by earlier stages in this store"
