"""The contract of a metric."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qbench.plugin import Plugin

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from qbench.metrics.rows import Rows
    from qbench.workloads.assets import Asset

    Array = NDArray[float64]
    Sums = Mapping[str, Array]


class Against(Enum):
    """What a metric compares the images of a cell with."""

    NOTHING = "nothing"
    REFERENCE = "real images"
    FULL_PRECISION = "full-precision images of the same noise"


@dataclass(frozen=True)
class Need:
    """What a metric is computed from.

    Attributes:
        extractor: public id of the extractor; None needs the images themselves.
        feature: name of the feature; ``pixels`` for the images, as float64 in [-1, 1].
        settings: of the extractor.
    """

    extractor: str | None
    feature: str
    settings: Mapping[str, Any] = field(default_factory=dict)


PIXELS = Need(None, "pixels")
KEPT_BYTES = 64_000_000
"""What sums of all groups may take in memory together; where they take more, they are computed twice."""


@dataclass(frozen=True)
class Gaussian:
    """Statistics of features, float64.

    Attributes:
        mean: [D].
        covariance: [D, D], divided by count - 1.
        root: [D, rank], whose product with its transpose is the covariance; None where nobody factored it yet.
    """

    mean: Array
    covariance: Array
    root: Array | None = None


@dataclass(frozen=True)
class Measured:
    """A figure, and what becomes of it without some of the images.

    Attributes:
        value: over all images.
        without: the figure without the images of one group, for each group; empty where there is no interval.
    """

    value: float
    without: tuple[float, ...] = ()


class Metric(Plugin):
    """A figure over the images of a cell.

    Derive from ``SumMetric`` where sums over images are enough, so that any number of them fits in memory; from
    ``RowsMetric`` where a figure needs the features themselves.

    Attributes:
        need: what it is computed from; set by ``__init__`` where settings decide it.
        against: what it compares with.
        direction: which way is better.
        protocol: what a reader must know in order to compare the figure with another, in one sentence.
        caveat: what a reader must not conclude from it, in one sentence; empty if there is nothing to warn of.
        has_interval: whether leaving out images tells how sure it is. Not so for a distance of two samples of nearly
            the same images: near zero it is all bias.
    """

    need: Need
    against: ClassVar[Against]
    direction: ClassVar[Literal["lower", "higher"]]
    protocol: str
    caveat: ClassVar[str] = ""
    has_interval: ClassVar[bool] = True

    def assets(self) -> Sequence[Asset]:
        """Return the published files that it needs, be they at hand or not; those of its extractor are not its own."""
        return ()

    @abstractmethod
    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group.

        Args:
            samples: features or pixels, in the order of sample indices.
            against: statistics of the real images, or their features for a ``RowsMetric``; the same rows of the
                full-precision cell; or None, as ``against`` of the class says.
            groups: image i belongs to group i mod ``groups``; 0 asks for the figure alone.

        Raises:
            StageError: there is no honest figure.
        """


class SumMetric(Metric):
    """A metric that is computed from sums over images: sums of shards add up, in any order and any split."""

    @abstractmethod
    def sums(self, rows: Array, paired: Array | None) -> Sums:
        """Return sums over some images by name; all are added up, entry by entry.

        Args:
            rows: features or pixels [count, ...].
            paired: the same rows of the full-precision cell, for a metric that compares with it.
        """

    @abstractmethod
    def compute(self, sums: Sums, reference: Gaussian | None) -> float:
        """Return the figure from sums over all images, and from the real images' statistics where it needs them.

        Raises:
            StageError: there is no honest figure.
        """

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group; see ``Metric``."""
        paired = None if against is None or isinstance(against, Gaussian) else against
        reference = against if isinstance(against, Gaussian) else None
        parts = [self._total(*self._group(samples, paired, group, groups)) for group in range(min(groups, 1))]
        is_small = sum(part.nbytes for part in parts[0].values()) * groups <= KEPT_BYTES if parts else False
        if is_small:  # images are looked at once
            parts += [self._total(*self._group(samples, paired, group, groups)) for group in range(1, groups)]
            total = _added(parts)
        else:
            total = self._total(samples, paired)
        without = []
        for group in range(groups):
            part = parts[group] if is_small else self._total(*self._group(samples, paired, group, groups))
            without.append(self.compute({name: total[name] - part[name] for name in total}, reference))
        return Measured(self.compute(total, reference), tuple(without))

    @staticmethod
    def _group(samples: Rows, paired: Rows | None, group: int, groups: int) -> tuple[Rows, Rows | None]:
        return samples.group(group, groups), None if paired is None else paired.group(group, groups)

    def _total(self, samples: Rows, paired: Rows | None) -> Sums:
        others = paired.chunks() if paired is not None else None
        return _added(self.sums(rows, None if others is None else next(others)) for rows in samples.chunks())


def _added(parts: Iterable[Sums]) -> Sums:
    total: dict[str, Array] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total[name] + value if name in total else value
    return total


class RowsMetric(Metric):
    """A metric that needs the features of all images at hand; they are mapped from files."""

    @abstractmethod
    def compute(self, samples: Rows, against: Rows | None) -> float:
        """Return the figure.

        Args:
            samples: features or pixels, in the order of sample indices.
            against: features of the real images, or None.

        Raises:
            StageError: there is no honest figure.
        """

    def measure(self, samples: Rows, against: Gaussian | Rows | None, groups: int) -> Measured:
        """Return the figure, and the figure without each group; see ``Metric``."""
        if isinstance(against, Gaussian):
            raise TypeError(f"{self.name} compares with features, not with statistics of them")
        without = [self.compute(samples.without(group, groups), against) for group in range(groups)]
        return Measured(self.compute(samples, against), tuple(without))
