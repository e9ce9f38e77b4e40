"""A whole run: plan, compute, record, tabulate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from qbench.cell import cell_id
from qbench.environment import environment, git_state
from qbench.errors import ResultsError
from qbench.execution.executor import ALONE, DEFAULT_EXECUTOR, Crew, find_executor
from qbench.execution.listener import Listener
from qbench.plan import CellPlan, make_plan
from qbench.records import Record, read_record, remove_leftovers, write_record
from qbench.results.collect import pending_record, record_path, settled_record
from qbench.results.strips import write_strip
from qbench.results.tables import write_suite_tables
from qbench.stages.stage import Runtime
from qbench.store import Store
from qbench.suite import Suite


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        folder: the suite's results folder.
        records: one for each cell, in the order of the suite.
        strangers: records in the folder that are no cells of the suite.
        unreadable: what is wrong with files in the folder that are no records.
    """

    folder: Path
    records: tuple[Record, ...]
    strangers: tuple[Path, ...]
    unreadable: tuple[str, ...]

    @property
    def failed(self) -> tuple[Record, ...]:
        """The cells that failed."""
        return tuple(record for record in self.records if record.status == "failed")


def run_suite(
    suite: Suite,
    store: Store,
    results: Path,
    runtime: Runtime,
    listener: Listener,
    executor: str = DEFAULT_EXECUTOR,
    crew: Crew = ALONE,
) -> Outcome:
    """Run a suite; whatever is in the store is not computed again.

    Args:
        suite: what to run.
        store: where artefacts are.
        results: folder of results; the suite's own lie in ``results/<name>``.
        runtime: device and batch size.
        listener: hears of everything.
        executor: public id of the executor.
        crew: who works on it.

    Raises:
        QbenchError: the executor is unknown or cannot do what is asked for.
        ResultsError: the results folder cannot be written.
        StoreError: the store gave out; what was finished is kept.
    """
    chosen = find_executor(executor, runtime, crew)
    folder = results / suite.name
    _check_writable(folder)
    plan = make_plan(suite)
    git = git_state(suite.path)
    worker = chosen(plan, store, runtime, listener, crew)
    records: dict[str, Record] = {}
    for planned in plan.cells:
        record = pending_record(suite, planned)
        records[planned.cell.id] = record
        path = record_path(folder, planned.cell.id)
        if not _is_recorded(record, path):
            write_record(record, path)

    def settled(planned: CellPlan) -> None:
        record = settled_record(records[planned.cell.id], planned, store, worker.failures, git)
        if not record.environment:
            record = record.model_copy(update={"environment": environment(str(runtime.torch_device()))})
        path = record_path(folder, planned.cell.id)
        known = _known_record(path)
        # The checkout moves on with every commit; that alone is no reason to touch a record.
        if known is None or known.model_copy(update={"git": record.git}) != record:
            write_record(record, path)
        write_strip(planned, record, store, folder)
        records[planned.cell.id] = record

    worker.run(settled)
    tables = write_suite_tables(folder)
    mine = {record_path(folder, cell_id(key)) for key in suite.positions}
    strangers = sorted(path for path in (folder / "records").glob("*.json") if path not in mine)
    return Outcome(folder, tuple(records.values()), tuple(strangers), tables.unreadable)


def _check_writable(folder: Path) -> None:
    probe = folder / "records" / f".probe.{os.getpid()}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
        remove_leftovers(folder)
    except OSError as error:
        raise ResultsError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --results"
        ) from error


def _known_record(path: Path) -> Record | None:
    try:
        return read_record(path) if path.exists() else None
    except ResultsError:
        return None


def _is_recorded(record: Record, path: Path) -> bool:
    """Whether there is a result of this very cell; it stays until there is a new one."""
    known = _known_record(path)
    return known is not None and known.results == record.results
