"""``qbench plan``."""

import json
from collections import Counter
from typing import TYPE_CHECKING

import typer

from qbench.cli import options
from qbench.cli.options import JsonOption, OnlyOption, SetOption, StandinOption, StoreOption, SuiteArgument

if TYPE_CHECKING:
    from qbench.estimate import Estimate


def plan(
    suite: SuiteArgument,
    store: StoreOption = None,
    only: OnlyOption = None,
    overrides: SetOption = None,
    standin: StandinOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a suite would run. Says what of it is cached and what the rest will cost."""
    chosen = options.load(suite, only, overrides, standin)
    from qbench.cli.fetch import tell_missing

    tell_missing(chosen, suite)
    from qbench.estimate import Rates
    from qbench.plan import make_plan

    made = make_plan(chosen)
    opened = options.open_store(store, read_only=True)
    missing = made.missing(opened)
    cost = Rates.of_store(opened).estimate(missing.values())
    total, needed = (Counter(stage.kind for stage in each.values()) for each in (made.stages, missing))
    if as_json:
        cells = [{"cell": each.cell.id, "digest": each.cell.digest} for each in made.cells]
        stages = {kind: {"total": total[kind], "to_compute": needed[kind]} for kind in total}
        estimate = {
            "seconds": None if cost.unknown_kinds else cost.seconds,
            "peak_memory_mb": cost.peak_memory_mb,
            "unknown_kinds": cost.unknown_kinds,
        }
        typer.echo(json.dumps({"cells": cells, "stages": stages, "estimate": estimate}, indent=1))
        return
    typer.echo(f"{chosen.title}: {len(made.cells)} cells")
    for each in made.cells:
        done = not any(target.digest in missing for target in each.targets)
        typer.echo(f"  {each.cell.id:48} {'cached' if done else 'to run'}")
    for kind in total:
        typer.echo(f"{kind:12} {needed[kind]:6} to compute, {total[kind] - needed[kind]:6} cached or not needed")
    typer.echo(_sentence(cost) if missing else "nothing to compute")


def _sentence(cost: "Estimate") -> str:
    from qbench.cli.progress import duration

    if cost.unknown_kinds:
        return f"no estimate: nothing of the kind was computed in this store before ({', '.join(cost.unknown_kinds)})"
    memory = "" if cost.peak_memory_mb is None else f", at most {cost.peak_memory_mb / 1000:.1f} GB of memory"
    return f"about {duration(cost.seconds)}{memory}, judged by earlier stages in this store"
