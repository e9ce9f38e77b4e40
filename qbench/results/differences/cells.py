"""What differs between two cells: settings, protocol, figures beyond their intervals, and the first artefact."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qbench.cell import cell_id
from qbench.errors import DamagedArtefact
from qbench.records import Record, StageCost
from qbench.results.comparing import Difference, difference
from qbench.results.differences.artefacts import file_changes
from qbench.results.differences.changes import Change, changes
from qbench.results.differences.tensors import FileChange
from qbench.stages.curve import Curve
from qbench.stages.features import Features
from qbench.stages.profile import Profile
from qbench.stages.reference import Reference
from qbench.stages.score import Score
from qbench.store import Store
from qbench.store.artefact import read_artefact

Verdict = Literal["same", "within its interval", "differs", "of another protocol", "on one side only"]
TOLERANCE = 1e-6
"""Figures that agree to this share are the same: what lies behind six digits differs between processors."""

MEASURING = {stage.kind for stage in (Curve, Features, Profile, Reference, Score)}
"""Stages whose artefacts are not looked at: what they measure is in the record."""


@dataclass(frozen=True)
class FigureChange:
    """A figure of two cells.

    Attributes:
        metric: its id.
        first: its value in the one cell; None if it has none.
        second: in the other.
        difference: second minus first; None if the two cannot be compared.
        verdict: whether it differs; one without an interval does wherever it is not the same.
    """

    metric: str
    first: float | None
    second: float | None
    difference: Difference | None
    verdict: Verdict

    @property
    def is_different(self) -> bool:
        """Whether it makes the cells differ."""
        return self.verdict not in ("same", "within its interval")


@dataclass(frozen=True)
class StageChange:
    """The first stage whose artefacts differ.

    Attributes:
        kind: of the stage.
        digests: of the two artefacts.
        file: the first file that differs.
    """

    kind: str
    digests: tuple[str, str]
    file: FileChange


@dataclass(frozen=True)
class CellDifference:
    """What differs between two cells.

    Attributes:
        names: of the cells.
        settings: what differs in what decides their figures.
        protocol: what differs in what their figures stand for.
        outcome: what differs in status, size and coverage.
        figures: all of them.
        environment: what differs in how they were made, seconds included; that does not make them differ.
        stage: the first stage whose artefacts differ, among those that make the images, if stores have them.
        stages_compared: how many stages of the two were compared by their artefacts.
    """

    names: tuple[str, str]
    settings: tuple[Change, ...]
    protocol: tuple[Change, ...]
    outcome: tuple[Change, ...]
    figures: tuple[FigureChange, ...]
    environment: tuple[Change, ...]
    stage: StageChange | None = None
    stages_compared: int = 0

    @property
    def is_same(self) -> bool:
        """Whether they are the same cell with the same result."""
        return not (self.settings or self.protocol or self.outcome or any(each.is_different for each in self.figures))

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        stage = None if self.stage is None else asdict(self.stage) | {"file": self.stage.file.as_json()}
        lists = ("settings", "protocol", "outcome", "environment")
        return {
            "same": self.is_same,
            "cells": list(self.names),
            **{name: [each.as_json() for each in getattr(self, name)] for name in lists},
            "figures": [asdict(each) for each in self.figures],
            "stage": stage,
            "stages_compared": self.stages_compared,
        }


def cell_difference(
    first: Record, second: Record, stores: tuple[Store, Store] | None = None, tolerance: float = TOLERANCE
) -> CellDifference:
    """Compare two cells.

    Args:
        first: the record of the one.
        second: of the other.
        stores: where the artefacts of each are looked up; None to look up none.
        tolerance: figures that agree to this share of the larger one are the same.

    Raises:
        ResultsError: a file of an artefact cannot be read.
    """
    stage, compared = _first_stage(first.stages, second.stages, stores) if stores else (None, 0)
    return CellDifference(
        (cell_id(first.key), cell_id(second.key)),
        tuple(changes(first.description, second.description)),
        tuple(_protocol(first, second)),
        tuple(changes(_outcome(first), _outcome(second))),
        tuple(_figures(first, second, tolerance)),
        tuple(changes(_environment(first), _environment(second))),
        stage,
        compared,
    )


def _protocol(first: Record, second: Record) -> Iterator[Change]:
    """Yield what differs in metrics of both; a figure that failed may not know its protocol."""
    for name, info in first.metrics.items():
        other = second.metrics.get(name)
        if other is not None and name not in first.failures and name not in second.failures:
            yield from changes(info.model_dump(mode="json"), other.model_dump(mode="json"), name)


def _outcome(record: Record) -> dict[str, Any]:
    profile = {} if record.profile is None else record.profile.model_dump(mode="json")
    return {"status": record.status, "failures": dict(record.failures), **profile}


def _environment(record: Record) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    for cost in record.stages:
        seconds[cost.stage] = round(seconds.get(cost.stage, 0.0) + cost.seconds, 1)
    return {**record.environment, "git": record.git, "schema_version": record.schema_version, "seconds": seconds}


def _figures(first: Record, second: Record, tolerance: float) -> Iterator[FigureChange]:
    for name in [*first.figures, *(name for name in second.figures if name not in first.figures)]:
        one, other = first.figures.get(name), second.figures.get(name)
        if one is None or other is None:
            values = [None if each is None else each.value for each in (one, other)]
            yield FigureChange(name, values[0], values[1], None, "on one side only")
        elif first.metrics.get(name) != second.metrics.get(name):
            yield FigureChange(name, one.value, other.value, None, "of another protocol")
        else:
            found = difference(second, first, name)
            assert found is not None
            share = abs(found.delta) / max(abs(one.value), abs(other.value), 1e-300)
            yield FigureChange(name, one.value, other.value, found, _verdict(found, share, tolerance))


def _verdict(found: Difference, share: float, tolerance: float) -> Verdict:
    if share <= tolerance:
        return "same"
    if found.low is not None and found.high is not None and found.low <= 0 <= found.high:
        return "within its interval"
    return "differs"


def _first_stage(
    first: Sequence[StageCost], second: Sequence[StageCost], stores: tuple[Store, Store]
) -> tuple[StageChange | None, int]:
    """Return the first stage whose artefacts differ, and how many were compared until then."""
    compared = 0
    for one, other in _pairs(first, second):
        try:
            artefacts = [
                read_artefact(store.folder(stage.stage, stage.digest))
                for store, stage in zip(stores, (one, other), strict=True)
            ]
        except DamagedArtefact:  # most often it is no more there
            continue
        compared += 1
        for change in file_changes(artefacts[0], artefacts[1]):
            return StageChange(one.stage, (one.digest, other.digest), change), compared
    return None, compared


def _pairs(first: Sequence[StageCost], second: Sequence[StageCost]) -> Iterator[tuple[StageCost, StageCost]]:
    """Yield the stages that both have, in the order of the first, shard beside shard."""
    rest: dict[str, list[StageCost]] = {}
    for stage in second:
        rest.setdefault(stage.stage, []).append(stage)
    for stage in first:
        if stage.stage not in MEASURING and rest.get(stage.stage):
            yield stage, rest[stage.stage].pop(0)
