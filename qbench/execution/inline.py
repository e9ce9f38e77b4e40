"""The default executor: one stage after the other, in this process and, if asked, in companions beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from qbench.execution.agenda import Agenda
from qbench.execution.attempt import attempt
from qbench.execution.executor import ALONE, Crew, Executor
from qbench.execution.listener import Listener
from qbench.execution.outcome import Outcome
from qbench.plan import CellPlan, Plan
from qbench.stages.kept import KEPT
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store

if TYPE_CHECKING:
    from qbench.execution.apart import Apart

POLL_SECONDS = 0.2


class Inline(Executor):
    """Computes one stage after the other.

    A stage that another process computes now is passed over and looked at again later; only when nothing else is left
    does this one wait. Where a stage's time has a limit, stages are computed in a process apart, which ends with it.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        runtime: Runtime,
        listener: Listener,
        crew: Crew = ALONE,
    ) -> None:
        self._plan = plan
        self._store = store
        self._runtime = runtime
        self._listener = listener
        self._companions = (crew.processes or 1) - 1
        self._agenda = Agenda(plan, store, listener)
        self._apart: Apart | None = None

    @classmethod
    def check(cls, runtime: Runtime, crew: Crew) -> None:
        """Refuse an address, and a device that this machine has not."""
        super().check(runtime, crew)
        if runtime.device != "auto":  # which is whatever there is; asking would import torch for nothing
            runtime.torch_device()

    @property
    def failures(self) -> Mapping[str, str]:
        """Reason by digest, for stages that failed and those that depend on them."""
        return self._agenda.failures

    def run(self, settled: Callable[[CellPlan], None]) -> None:
        """Work until every cell is complete or has failed."""
        try:
            if not self._companions:
                self._work(settled)
                return
            from qbench.execution.companions import companions  # multiprocessing takes its time to import

            with companions(self._companions, self._plan, self._store, self._runtime):
                self._work(settled)
        finally:
            KEPT.drop()
            if self._apart is not None:
                self._apart.end()

    def _work(self, settled: Callable[[CellPlan], None]) -> None:
        agenda = self._agenda
        agenda.announce()
        agenda.settle(settled)
        while agenda.to_do:
            progressed = False
            for stage in list(agenda.to_do.values()):
                if agenda.is_ready(stage) and agenda.note(stage, self._attempt(stage)):
                    progressed = True
                    agenda.settle(settled)
            if not progressed:
                self._listener.waiting(agenda.ready()[0])
                time.sleep(POLL_SECONDS)

    def _attempt(self, stage: Stage) -> Outcome:
        def started() -> None:
            self._listener.started(stage)

        def report(amount: float) -> None:
            self._listener.advanced(stage, amount)

        def note(sentence: str) -> None:
            self._listener.noted(stage, sentence)

        if self._runtime.stage_limit is None:
            return attempt(stage, self._store, self._runtime, started, report, note)
        if self._apart is None:
            from qbench.execution.apart import Apart  # multiprocessing takes its time to import

            self._apart = Apart(self._store, self._runtime)
        return self._apart.attempt(stage, started, report, note)
