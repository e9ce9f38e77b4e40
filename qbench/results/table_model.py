"""A table as data: what every markup is written from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Value:
    """A figure.

    Attributes:
        number: the figure.
        is_best: whether it is marked as the best of its bits.
    """

    number: float
    is_best: bool = False


@dataclass(frozen=True)
class Change:
    """A difference from full precision, or only the interval of one.

    Attributes:
        delta: the difference.
        low: lower end of its interval; None if there is none.
        high: upper end.
        interval_only: whether only the interval is printed, of a figure that has no sign.
    """

    delta: float
    low: float | None
    high: float | None
    interval_only: bool = False

    @property
    def is_inconclusive(self) -> bool:
        """Whether its interval holds zero, so that its sign is not known."""
        if self.interval_only or self.low is None or self.high is None:
            return False
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Spread:
    """Figures of several seeds.

    Attributes:
        values: of the seeds that have one.
        seeds: how many seeds there are.
        is_difference: whether the sign is printed always.
        is_best: whether it is marked as the best of its bits.
        interval: of their mean; None if there is none.
    """

    values: tuple[float, ...]
    seeds: int
    is_difference: bool = False
    is_best: bool = False
    interval: tuple[float, float] | None = None

    @property
    def is_inconclusive(self) -> bool:
        """Whether the interval of their mean holds zero, so that its sign is not known."""
        return self.interval is not None and self.interval[0] <= 0 <= self.interval[1]


Cell = str | Value | Change | Spread


@dataclass(frozen=True)
class Column:
    """What stands above a column.

    Attributes:
        title: in words.
        direction: which figures are better; None for what is no metric.
        is_words: whether it is set from the left.
    """

    title: str
    direction: Literal["lower", "higher"] | None = None
    is_words: bool = False


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        cells: one for each column.
        opens_group: whether other bits begin here.
    """

    cells: tuple[Cell, ...]
    opens_group: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
