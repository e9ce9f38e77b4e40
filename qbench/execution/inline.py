"""The default executor: one stage after the other, in this process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from qbench.environment import environment, peak_memory_mb
from qbench.errors import DamagedArtefact, QbenchError, StoreError
from qbench.execution.listener import Listener
from qbench.identity import file_digest
from qbench.plan import CellPlan, Plan
from qbench.stages.stage import Runtime, Stage, Work
from qbench.store import Artefact, Manifest, Store
from qbench.store.store import is_about_space, store_error

POLL_SECONDS = 0.2


class Inline:
    """Computes what a plan misses, beside any other process that works on the same store.

    A stage that another process computes now is passed over and looked at again later; only when nothing else is left
    does this one wait. A stage that fails stops what depends on it and nothing else.

    Args:
        plan: what is wanted.
        store: where artefacts are.
        runtime: device and batch size.
        listener: hears of everything.

    Attributes:
        failures: reason by digest, for stages that failed and those that depend on them.
    """

    def __init__(self, plan: Plan, store: Store, runtime: Runtime, listener: Listener) -> None:
        self._plan = plan
        self._store = store
        self._runtime = runtime
        self._listener = listener
        self._set_damaged_targets_aside()
        self._to_do = plan.missing(store)
        self.failures: dict[str, str] = {}

    def run(self, settled: Callable[[CellPlan], None]) -> None:
        """Work until every cell is complete or has failed.

        Args:
            settled: called with each cell, once, as soon as its fate is known.

        Raises:
            StoreError: the store gave out; what was finished is kept.
        """
        self._listener.planned(dict(self._to_do), len(self._plan.stages))
        waiting = self._settle(list(self._plan.cells), settled)
        while self._to_do:
            progressed = False
            for stage in list(self._to_do.values()):
                if self._is_ready(stage) and self._attempt(stage):
                    progressed = True
                    waiting = self._settle(waiting, settled)
            if not progressed:
                self._listener.waiting(next(stage for stage in self._to_do.values() if self._is_ready(stage)))
                time.sleep(POLL_SECONDS)

    def _set_damaged_targets_aside(self) -> None:
        """Look at what records are made from; inputs are looked at when they are read."""
        for target in {target.digest: target for cell in self._plan.cells for target in cell.targets}.values():
            if self._store.has(target.kind, target.digest):
                self._intact(target)

    def _intact(self, stage: Stage) -> Artefact | None:
        """Return an artefact; set it aside and return None if it is damaged."""
        try:
            return self._store.get(stage.kind, stage.digest)
        except DamagedArtefact as error:
            self._listener.damaged(stage, str(error))
            self._store.set_aside(stage.kind, stage.digest)
            return None

    def _settle(self, cells: list[CellPlan], settled: Callable[[CellPlan], None]) -> list[CellPlan]:
        """Report the cells with nothing left to do; return the others."""
        waiting = []
        for cell in cells:
            if any(target.digest in self._to_do for target in cell.targets):
                waiting.append(cell)
            else:
                settled(cell)
        return waiting

    def _is_ready(self, stage: Stage) -> bool:
        if stage.digest not in self._to_do:
            return False
        return not any(each.digest in self._to_do for each in stage.inputs().values())

    def _attempt(self, stage: Stage) -> bool:
        """Compute a stage unless another process does so now; return whether anything changed."""
        with self._store.claim(stage.digest) as mine:
            if not mine:
                return False
            if self._store.has(stage.kind, stage.digest):
                del self._to_do[stage.digest]
                self._listener.appeared(stage)
                return True
            inputs = self._inputs(stage)
            if inputs is not None:
                self._compute(stage, inputs)
            return True

    def _inputs(self, stage: Stage) -> dict[str, Artefact] | None:
        """Return a stage's inputs; None if one was damaged and has to be computed again first."""
        inputs = {}
        for name, each in stage.inputs().items():
            artefact = self._intact(each)
            if artefact is None:
                self._to_do = {**self._plan.missing(self._store, [each]), **self._to_do}
                return None
            inputs[name] = artefact
        return inputs

    def _compute(self, stage: Stage, inputs: dict[str, Artefact]) -> None:
        device = str(self._runtime.torch_device())  # imports torch, which is no part of the stage's time
        self._listener.started(stage)
        begun = time.perf_counter()
        try:
            with self._store.pending(stage.digest) as folder:
                work = Work(inputs, folder, self._runtime, lambda amount: self._listener.advanced(stage, amount))
                try:
                    stage.compute(work)
                except Exception as error:
                    # Libraries report a full disk in their own words, or in none.
                    if is_about_space(error) or self._store.is_full():
                        raise store_error(None, self._store.root) from error
                    raise
                seconds = time.perf_counter() - begun
                manifest = Manifest(
                    kind=stage.kind,
                    digest=stage.digest,
                    group=stage.group,
                    description=stage.description,
                    files=_digests(folder),
                    seconds=round(seconds, 3),
                    work=stage.work,
                    peak_memory_mb=round(peak_memory_mb(), 1),
                    environment=environment(device),
                )
                self._store.publish(folder, manifest)
        except StoreError:
            raise
        except QbenchError as error:
            self._fail(stage, str(error))
        except (Exception, SystemExit) as error:  # whatever a plugin raises must not stop the other cells
            path = self._store.keep_traceback(stage.kind, stage.digest, traceback.format_exc())
            self._fail(stage, f"{type(error).__name__}: {error}", path)
        else:
            del self._to_do[stage.digest]
            self._listener.finished(stage, seconds)

    def _fail(self, stage: Stage, reason: str, details: Path | None = None) -> None:
        """Give up a stage and everything that depends on it."""
        line = " ".join(f"{stage.kind}: {reason}".split())
        self._listener.failed(stage, line, details)
        self.failures[stage.digest] = line
        del self._to_do[stage.digest]
        for other in list(self._to_do.values()):
            failed = next((each for each in other.inputs().values() if each.digest in self.failures), None)
            if failed is not None:
                self.failures[other.digest] = self.failures[failed.digest]
                del self._to_do[other.digest]
                self._listener.skipped(other)


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder and the folders in it, by its path within."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
