"""``qbench plan``."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options
from qbench.cli.options import (
    BatchSizeOption,
    JsonOption,
    OnlyOption,
    SetOption,
    StandinOption,
    StoreOption,
    SuiteArgument,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qbench.estimate import Estimate
    from qbench.memory.calibration import WorkloadMemory
    from qbench.plan import Plan
    from qbench.stages.stage import Stage


def plan(
    suite: SuiteArgument,
    store: StoreOption = None,
    batch_size: BatchSizeOption = None,
    only: OnlyOption = None,
    overrides: SetOption = None,
    standin: StandinOption = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes that will share the work.")] = 1,
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
    cost = (Rates.of_store(opened) if missing else Rates()).estimate(missing.values())
    total, needed = (Counter(stage.kind for stage in each.values()) for each in (made.stages, missing))
    if as_json:
        cells = [{"cell": each.cell.id, "digest": each.cell.digest} for each in made.cells]
        stages = {kind: {"total": total[kind], "to_compute": needed[kind]} for kind in total}
        estimate = {
            "seconds": None if cost.unknown_kinds else cost.seconds / processes,
            "processes": processes,
            "peak_memory_mb": cost.peak_memory_mb,
            "unknown_kinds": cost.unknown_kinds,
        }
        memory = {each.workload: _memory_for_programs(each) for each in _memory(made, missing, batch_size)}
        answer = {"cells": cells, "stages": stages, "estimate": estimate, "calibration_memory": memory}
        typer.echo(json.dumps(answer, indent=1))
        return
    typer.echo(f"{chosen.title}: {len(made.cells)} cells")
    for each in made.cells:
        done = not any(target.digest in missing for target in each.targets)
        typer.echo(f"  {each.cell.id:48} {'cached' if done else 'to run'}")
    for kind in total:
        typer.echo(f"{kind:12} {needed[kind]:6} to compute, {total[kind] - needed[kind]:6} cached or not needed")
    typer.echo(_sentence(cost, processes) if missing else "nothing to compute")
    for found in _memory(made, missing, batch_size):
        typer.echo(_memory_sentence(found))


def _sentence(cost: "Estimate", processes: int) -> str:
    from qbench.cli.progress import duration

    unknown = f"nothing of the kind was computed in this store before ({', '.join(cost.unknown_kinds)})"
    if not cost.seconds:
        return f"no estimate: {unknown}"
    memory = "" if cost.peak_memory_mb is None else f", at most {cost.peak_memory_mb / 1000:.1f} GB of memory"
    shared = "one process" if processes == 1 else f"{processes} processes"
    judged = f"{duration(cost.seconds / processes)} in {shared}{memory}, judged by earlier stages in this store"
    return f"more than {judged}: of some, {unknown}" if cost.unknown_kinds else f"about {judged}"


def _memory(made: "Plan", missing: "Mapping[str, Stage]", batch_size: int | None) -> "list[WorkloadMemory]":
    from qbench.memory.calibration import memory_of_plan
    from qbench.stages.stage import Runtime

    return memory_of_plan(made, missing, Runtime(batch_size=batch_size))


def _memory_sentence(found: "WorkloadMemory") -> str:
    if not found.stages:
        return f"{found.workload}: how much memory calibration needs is not known: {found.reason}"
    most = found.heaviest
    unit, size, digits = ("GB", 1e9, 1) if most.total >= 1e9 else ("MB", 1e6, 0)
    parts = {
        "model": most.model,
        "running state": most.running_state,
        most.moment: most.work,
        "calibration data": most.data,
    }
    shown = ", ".join(f"{name} {amount / size:.{digits}f}" for name, amount in parts.items() if amount)
    files = f"; up to {found.in_files / 1e9:.1f} GB of running state go to files" if found.in_files else ""
    return (
        f"{found.workload}: calibration needs about {most.total / size:.{digits}f} {unit} on the device "
        f"({most.title}, {most.kind}: {shown}), {most.process / 1e9:.1f} GB in all without an accelerator{files}"
    )


def _memory_for_programs(found: "WorkloadMemory") -> dict[str, object]:
    from dataclasses import asdict

    if not found.stages:
        return {"reason": found.reason}
    most = found.heaviest
    heaviest = {**asdict(most), "total": most.total, "process": most.process}
    return {"heaviest": heaviest, "in_files": found.in_files}
