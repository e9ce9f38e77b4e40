"""What stages will cost, judged by those that were computed before."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from qbench.errors import DamagedArtefact
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.store.artefact import read_artefact


@dataclass(frozen=True)
class Estimate:
    """The cost of some stages.

    Attributes:
        seconds: time of those for which one is known.
        peak_memory_mb: the largest peak of earlier stages of these kinds, decimal MB; None if there are none.
        unknown_kinds: kinds of stages for which no time is known.
    """

    seconds: float
    peak_memory_mb: float | None
    unknown_kinds: tuple[str, ...]


def _typical(rates: Sequence[float]) -> float:
    """Return what the next stage will take for each unit of work.

    The first stage of a process pays for imports, and for what libraries set up once: thirty times what a profile
    takes. The median leaves it out, but not where there are two, as after the first quantized cell: that and its full
    precision.
    """
    return min(rates) if len(rates) == 2 else median(rates)


class Rates:
    """Seconds for each unit of work, by kind and group of stages."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], list[float]] = {}
        self._peaks: dict[str, float] = {}

    @classmethod
    def of_store(cls, store: Store) -> "Rates":
        """Return what the manifests of a store tell."""
        rates = cls()
        for folder in (store.root / "artefacts").glob("*/*"):
            try:
                manifest = read_artefact(folder).manifest
            except DamagedArtefact:
                continue
            rates._add(manifest.kind, manifest.group, manifest.seconds / max(manifest.work, 1e-9))
            rates._peaks[manifest.kind] = max(rates._peaks.get(manifest.kind, 0.0), manifest.peak_memory_mb)
        return rates

    def observe(self, stage: Stage, seconds: float) -> None:
        """Learn from a stage that was just computed."""
        self._add(stage.kind, stage.group, seconds / max(stage.work, 1e-9))

    def seconds(self, stage: Stage) -> float | None:
        """Return what a stage will take: by its group, else by its kind if its groups are alike, else unknown."""
        known = self._rates.get((stage.kind, stage.group))
        if known is None and stage.groups_are_alike:
            known = [rate for (kind, _), rates in self._rates.items() if kind == stage.kind for rate in rates]
        return _typical(known) * stage.work if known else None

    def estimate(self, stages: Iterable[Stage]) -> Estimate:
        """Return what stages will cost together, one after the other."""
        total, unknown, kinds = 0.0, set(), set()
        for stage in stages:
            kinds.add(stage.kind)
            seconds = self.seconds(stage)
            if seconds is None:
                unknown.add(stage.kind)
            else:
                total += seconds
        peak = max((self._peaks[kind] for kind in kinds if kind in self._peaks), default=None)
        return Estimate(total, peak, tuple(sorted(unknown)))

    def _add(self, kind: str, group: str, rate: float) -> None:
        self._rates.setdefault((kind, group), []).append(rate)
