"""What an executor tells while it works."""

from pathlib import Path

from qbench.stages.stage import Stage


class Listener:
    """Hears of everything; this one says nothing. Progress displays and records derive from it."""

    def planned(self, missing: dict[str, Stage], total: int) -> None:
        """Hear which of ``total`` stages are to be computed, by digest."""

    def joined(self, workers: int) -> None:
        """Hear how many stages are computed at a time, where that turns out only now."""

    def started(self, stage: Stage) -> None:
        """Hear that a stage is being computed."""

    def advanced(self, stage: Stage, amount: float) -> None:
        """Hear of work done, in units of ``stage.work``."""

    def finished(self, stage: Stage, seconds: float) -> None:
        """Hear that a stage is in the store, computed here."""

    def appeared(self, stage: Stage) -> None:
        """Hear that another process computed a stage meanwhile."""

    def waiting(self, stage: Stage) -> None:
        """Hear that nothing is left to do here until another process has computed a stage."""

    def failed(self, stage: Stage, reason: str, details: Path | None) -> None:
        """Hear that a stage failed, why in one line, and where its traceback is if it is a defect."""

    def skipped(self, stage: Stage) -> None:
        """Hear that a stage is given up because one of its inputs failed."""

    def noted(self, stage: Stage, sentence: str) -> None:
        """Hear what the user should know of a stage that goes on."""

    def damaged(self, stage: Stage, reason: str) -> None:
        """Hear that an artefact was damaged, set aside, and will be computed again."""
