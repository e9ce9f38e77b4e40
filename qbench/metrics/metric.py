"""The contract of a metric."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.plugin import Plugin

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Array = NDArray[float64]


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
    """

    extractor: str | None
    feature: str


PIXELS = Need(None, "pixels")


@dataclass(frozen=True)
class Gaussian:
    """Mean [D] and covariance [D, D] (divided by count - 1) of features, float64."""

    mean: Array
    covariance: Array


class Metric(Plugin):
    """A figure over the images of a cell.

    Attributes:
        need: what it is computed from.
        against: what it compares with.
        direction: which way is better.
        protocol: what a reader must know in order to compare the figure with another, in one sentence.
    """

    need: ClassVar[Need]
    against: ClassVar[Against]
    direction: ClassVar[Literal["lower", "higher"]]
    protocol: ClassVar[str]

    @abstractmethod
    def compute(self, samples: Array, against: Gaussian | Array | None) -> float:
        """Return the figure.

        Args:
            samples: features or pixels [count, ...], in the order of sample indices.
            against: statistics of the real images, or the same rows of the full-precision cell, or None, as
                ``against`` of the class says.
        """
