"""What is finished while a run is still going on: figures of the store for cells whose record is not settled yet."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from qbench.cell import cell_id
from qbench.errors import DamagedArtefact
from qbench.records import CurveInfo, ProfileInfo, Record
from qbench.results.collect import read_figure
from qbench.stages.curve import FILE as CURVE_FILE
from qbench.stages.curve import Curve
from qbench.stages.profile import FILE as PROFILE_FILE
from qbench.stages.profile import Profile
from qbench.stages.score import Score
from qbench.store import Artefact, Store

Overlay = Callable[[Record], Record]
"""What tables are made of in place of a record that is pending."""
STATES = ("complete", "failed", "begun", "not run")


@dataclass
class StoreOverlay:
    """Completes pending records with what the store has of their results; it writes nothing.

    Attributes:
        store: where the run leaves its artefacts.
        damaged: what is wrong with artefacts that cannot be read; the run computes them again.
    """

    store: Store
    damaged: list[str] = field(default_factory=list)

    def __call__(self, record: Record) -> Record:
        """Return a record with the figures, profile and curve that are there; complete once nothing is missing."""
        if record.status != "pending":
            return record
        found: dict[str, Any] = {"figures": {}}
        for name, digest in record.results.items():
            if name == "profile":
                found["profile"] = self._read(Profile.kind, digest, _read_profile, record)
            elif name == "curve":
                found["curve"] = self._read(Curve.kind, digest, _read_curve, record)
            else:
                found["figures"][name] = self._read(Score.kind, digest, read_figure, record)
        missing = None in found.values() or None in found["figures"].values()
        found["figures"] = {name: figure for name, figure in found["figures"].items() if figure is not None}
        return record.model_copy(update=found | ({} if missing else {"status": "complete"}))

    def _read(self, kind: str, digest: str, read: Callable[[Artefact], Any], record: Record) -> Any:
        if not self.store.has(kind, digest):
            return None
        try:
            return read(self.store.get(kind, digest))
        except (DamagedArtefact, OSError, ValidationError):
            self.damaged.append(
                f"{cell_id(record.key)}: the artefact {kind} {digest[:12]} in the store is damaged; "
                "the next run computes it again"
            )
            return None


def _read_profile(artefact: Artefact) -> ProfileInfo:
    return ProfileInfo.model_validate_json(artefact.file(PROFILE_FILE).read_bytes())


def _read_curve(artefact: Artefact) -> CurveInfo:
    return CurveInfo.model_validate_json(artefact.file(CURVE_FILE).read_bytes())


def counts_by_state(records: Iterable[Record]) -> dict[str, int]:
    """Return how many cells are complete, failed, begun (a figure or the curve is there), or not run.

    Whether a process is at work on one that is begun, no record tells: it may have been killed since. The same command
    goes on with it.
    """
    counts = Counter(_state(record) for record in records)
    return {state: counts[state] for state in STATES}


def _state(record: Record) -> str:
    if record.status != "pending":
        return record.status
    return "begun" if record.figures or record.curve else "not run"
