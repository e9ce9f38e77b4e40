"""What is left of a plan, and what follows from what came of a stage. Every executor works one off."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qbench.errors import DamagedArtefact
from qbench.execution.listener import Listener
from qbench.execution.outcome import Appeared, Busy, Computed, Damaged, Failed, Outcome
from qbench.plan import CellPlan, Plan
from qbench.secrets import without_secrets
from qbench.stages.stage import Stage
from qbench.store import Store


class Agenda:
    """The stages that are still to be computed.

    Making one sets damaged targets aside: records are made from these, while inputs are looked at when they are read.

    Args:
        plan: what is wanted.
        store: where artefacts are.
        listener: hears of everything that changes.

    Attributes:
        to_do: stages by digest, inputs first.
        failures: reason by digest, for stages that failed and those that depend on them.
    """

    def __init__(self, plan: Plan, store: Store, listener: Listener) -> None:
        self._plan = plan
        self._store = store
        self._listener = listener
        self._set_damaged_targets_aside()
        self.to_do = self._missing()
        self.failures: dict[str, str] = {}
        self._unsettled = list(plan.cells)

    def announce(self) -> None:
        """Tell the listener how much there is to do."""
        self._listener.planned(dict(self.to_do), len(self._plan.stages))

    def ready(self) -> list[Stage]:
        """Return the stages whose inputs are all there, in the order of the plan."""
        return [stage for stage in self.to_do.values() if self.is_ready(stage)]

    def is_ready(self, stage: Stage) -> bool:
        """Whether a stage is to be computed and its inputs are all there."""
        if stage.digest not in self.to_do:
            return False
        return not any(each.digest in self.to_do for each in stage.inputs().values())

    def note(self, stage: Stage, outcome: Outcome) -> bool:
        """Draw the consequences of what came of a stage; return whether anything changed."""
        match outcome:
            case Busy():
                return False
            case Appeared():
                del self.to_do[stage.digest]
                self._listener.appeared(stage)
            case Computed(seconds, notes):
                for sentence in notes:
                    self._listener.noted(stage, sentence)
                del self.to_do[stage.digest]
                self._listener.finished(stage, seconds)
            case Failed(reason, details):
                line = " ".join(without_secrets(f"{stage.kind}: {reason}").split())
                self._listener.failed(stage, line, details)
                self._give_up(stage, line)
            case Damaged(digest, reason):
                damaged = next(each for each in stage.inputs().values() if each.digest == digest)
                self._listener.damaged(damaged, reason)
                self.to_do = {**self._missing([damaged]), **self.to_do}
        return True

    def settle(self, settled: Callable[[CellPlan], None]) -> None:
        """Report each cell with nothing left to do that was not reported before.

        Images that only other cells are compared with are the cell's own all the same: its record tells what they cost.
        """
        unsettled = []
        for cell in self._unsettled:
            if any(stage.digest in self.to_do for stage in (*cell.targets, *cell.shards)):
                unsettled.append(cell)
            else:
                settled(cell)
        self._unsettled = unsettled

    def _set_damaged_targets_aside(self) -> None:
        for target in {target.digest: target for cell in self._plan.cells for target in cell.targets}.values():
            if self._store.has(target.kind, target.digest):
                self._set_aside_if_damaged(target)

    def _missing(self, targets: Iterable[Stage] | None = None) -> dict[str, Stage]:
        """Return what is to be computed; what lies in its place has lost its manifest, and is set aside."""
        found = self._plan.missing(self._store, targets)
        for stage in found.values():
            if self._store.folder(stage.kind, stage.digest).exists():
                self._set_aside_if_damaged(stage)
        return found

    def _set_aside_if_damaged(self, stage: Stage) -> None:
        try:
            self._store.get(stage.kind, stage.digest)
        except DamagedArtefact as error:
            self._listener.damaged(stage, str(error))
            self._store.set_aside(stage.kind, stage.digest)

    def _give_up(self, stage: Stage, line: str) -> None:
        """Give up a stage and everything that depends on it."""
        self.failures[stage.digest] = line
        del self.to_do[stage.digest]
        for other in list(self.to_do.values()):
            failed = next((each for each in other.inputs().values() if each.digest in self.failures), None)
            if failed is not None:
                self.failures[other.digest] = self.failures[failed.digest]
                del self.to_do[other.digest]
                self._listener.skipped(other)
