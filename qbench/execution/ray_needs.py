"""What a stage needs of a cluster, and which node has it. Pure: nothing here knows Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qbench.errors import DamagedArtefact
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.store.artefact import read_artefact

WITHOUT_ACCELERATOR = frozenset({"score", "conversion"})
"""Kinds of stages that compute on the processor whatever the device is."""
MEMORY_SHARE = 0.9
"""How much of a node's memory one stage may ask for: an earlier peak must never keep a stage from running at all."""

Peaks = Mapping[tuple[str, str], float]
"""Peak memory in bytes by kind and group of stages."""


@dataclass(frozen=True)
class Needs:
    """What one stage occupies while it is computed.

    Attributes:
        cpus: one for each thread.
        gpus: accelerators.
        memory: bytes.
    """

    cpus: float = 0.0
    gpus: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Needs) -> Needs:
        return Needs(self.cpus + other.cpus, self.gpus + other.gpus, self.memory + other.memory)


@dataclass(frozen=True)
class Node:
    """One machine of a cluster, as a whole.

    Attributes:
        id: Ray's.
        name: what a person calls it.
        cpus: as Ray counts them.
        gpus: accelerators.
        memory: bytes for processes.
    """

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float

    def holds(self, needs: Needs) -> bool:
        """Whether the whole node is enough."""
        return needs.cpus <= self.cpus and needs.gpus <= self.gpus and needs.memory <= self.memory

    def places(self, needs: Needs) -> int:
        """Return how many stages of some needs, memory aside, it computes at a time."""
        counts = [self.cpus // needs.cpus] + ([self.gpus // needs.gpus] if needs.gpus else [])
        return int(min(counts))


def needs_of(stage: Stage, threads: int, on_accelerator: bool, peaks: Peaks, nodes: Iterable[Node]) -> Needs:
    """Return what a stage needs.

    Args:
        stage: the stage.
        threads: of the process that computes it.
        on_accelerator: whether stages compute on an accelerator as far as they can.
        peaks: of earlier stages.
        nodes: none of which is asked for more memory than the largest of them has.
    """
    gpus = 1.0 if on_accelerator and stage.kind not in WITHOUT_ACCELERATOR else 0.0
    able = [node.memory for node in nodes if node.gpus >= gpus and node.cpus >= threads]
    most = MEMORY_SHARE * max(able, default=0.0)
    return Needs(float(threads), gpus, float(int(min(peaks.get((stage.kind, stage.group), 0.0), most))))


def choose(needs: Needs, nodes: Sequence[Node], used: Mapping[str, Needs], avoided: frozenset[str]) -> Node | None:
    """Return the node to compute something on now; None if all that can are busy.

    Nodes without accelerators take what needs none, then those with the most free processors.

    Args:
        needs: what is needed.
        nodes: that are alive.
        used: what is occupied already, by node.
        avoided: nodes on which it died before; taken only if no other node could ever hold it.
    """
    able = [node for node in nodes if node.holds(needs)]
    elsewhere = [node for node in able if node.id not in avoided]
    free = [node for node in elsewhere or able if node.holds(needs + used.get(node.id, Needs()))]
    return min(free, key=lambda node: _rank(node, needs, used), default=None)


def known_peaks(store: Store) -> dict[tuple[str, str], float]:
    """Return the peaks that the manifests of a store tell.

    A process's peak includes whatever it computed before, so the least one of a kind and group is nearest to the truth.
    """
    peaks: dict[tuple[str, str], float] = {}
    for folder in (store.root / "artefacts").glob("*/*"):
        try:
            manifest = read_artefact(folder).manifest
        except DamagedArtefact:
            continue
        key = (manifest.kind, manifest.group)
        peaks[key] = min(peaks.get(key, float("inf")), manifest.peak_memory_mb * 1e6)
    return peaks


def _rank(node: Node, needs: Needs, used: Mapping[str, Needs]) -> tuple[float, float, str]:
    spare_gpus = node.gpus if not needs.gpus else 0.0
    return (spare_gpus, used.get(node.id, Needs()).cpus - node.cpus, node.id)
