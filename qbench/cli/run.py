"""``qbench run``."""

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options
from qbench.cli.options import (
    BatchSizeOption,
    ChannelsLastOption,
    CompileOption,
    CudaGraphsOption,
    JsonOption,
    OnlyOption,
    ResultsOption,
    SetOption,
    StageLimitOption,
    StandinOption,
    StoreOption,
    SuiteArgument,
    TF32Option,
)

if TYPE_CHECKING:
    from qbench.execution.run import Outcome
    from qbench.suite import Suite


def run(
    suite: SuiteArgument,
    results: ResultsOption = options.RESULTS,
    store: StoreOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    executor: Annotated[
        str, typer.Option(help="inline, or ray for several devices or machines; see docs/cluster.md.")
    ] = "inline",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster that runs already, or auto; for ray only.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that share the work, and the processor's cores: two can halve the time."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each process; the cores shared out by default.")
    ] = None,
    cache_gb: Annotated[
        float, typer.Option(min=0, help="Memory for what calibration keeps at hand; what is more goes to files.")
    ] = 4.0,
    stage_limit: StageLimitOption = None,
    batch_size: BatchSizeOption = None,
    tf32: TF32Option = False,
    channels_last: ChannelsLastOption = False,
    compiled: CompileOption = False,
    cuda_graphs: CudaGraphsOption = False,
    only: OnlyOption = None,
    overrides: SetOption = None,
    standin: StandinOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, like `qbench plan`.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a suite and print its table. What was computed before is not computed again."""
    if dry_run:
        from qbench.cli.plan import plan

        return plan(
            suite,
            store=store,
            batch_size=batch_size,
            only=only,
            overrides=overrides,
            standin=standin,
            processes=processes or 1,
            as_json=as_json,
        )

    limit = None if stage_limit is None else options.seconds("--stage-limit", stage_limit)
    # Threads that wait should sleep: spinning ones make two runs on one machine several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    elif processes is not None and processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    chosen = options.load(suite, only, overrides, standin)
    from qbench.cli.fetch import tell_missing

    tell_missing(chosen, suite)
    from qbench.cli.progress import progress
    from qbench.execution.executor import Crew, find_executor
    from qbench.execution.run import run_suite
    from qbench.stages.stage import Runtime

    runtime = Runtime(device, batch_size, int(cache_gb * 1e9), tf32, channels_last, compiled, cuda_graphs, limit)
    crew = Crew(processes, threads, address)
    find_executor(executor, runtime, crew)
    if chosen.standins and not as_json:
        _print_standins(chosen)
    opened = options.open_store(store)
    try:
        with progress(opened, processes or 1) as listener:
            outcome = run_suite(chosen, opened, results, runtime, listener, executor, crew)
    except KeyboardInterrupt:
        print("\nqbench: stopped; what is finished is kept, run the same command to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(_summary(outcome), indent=1))
    else:
        _print(outcome)
    raise typer.Exit(1 if outcome.failed else 0)


def _print_standins(suite: "Suite") -> None:
    typer.echo(suite.title)
    for name, standin in suite.standins.items():
        typer.echo(f"  {standin} stands in for {name}")


def _summary(outcome: "Outcome") -> dict[str, object]:
    return {
        "folder": str(outcome.folder),
        "cells": [record.model_dump(mode="json", exclude={"description"}) for record in outcome.records],
    }


def _print(outcome: "Outcome") -> None:
    from qbench.cli.tables import print_records

    print_records(outcome.records)
    for path in outcome.strangers:
        typer.echo(f"{path} is no cell of this suite (any more); remove it if its row should go", err=True)
    for problem in outcome.unreadable:
        typer.echo(f"not in the table: {problem}", err=True)
    if outcome.failed:
        typer.echo(f"{len(outcome.failed)} of {len(outcome.records)} cells failed", err=True)
    typer.echo(f"{outcome.folder}/table.md", err=True)
