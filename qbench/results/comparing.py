"""How much two rows differ in a figure, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

from qbench.metrics.confidence import GROUPS, jackknife_interval
from qbench.records import Figure, Record
from qbench.results.wording import EXTERNAL


@dataclass(frozen=True)
class Difference:
    """What one row has more than another.

    Attributes:
        delta: first minus second; over several seeds, the mean.
        low: lower end of the 95 % interval, over the images drawn; None if there is no interval.
        high: upper end.
        seeds: how many seeds it is over.
        seeds_agree: whether it has one sign at every seed.
    """

    delta: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    seeds_agree: bool = True

    @property
    def is_conclusive(self) -> bool:
        """Whether it is sure which of the two is greater: there is an interval without 0, and every seed agrees."""
        if self.low is None or self.high is None:
            return False
        return self.seeds_agree and not self.low <= 0 <= self.high


def difference(first: Record, second: Record, metric: str) -> Difference | None:
    """Return what one cell has more than another in a figure.

    Cells that were sampled from the same noise are paired: both figures are taken without the same images in turn
    (delete-a-group jackknife), so what the images have in common cancels. Other cells are compared by the jackknife of
    each, in quadrature. Where a record holds no figures without groups of images, the intervals of the differences from
    the same full precision take their place: what results holds 0 exactly where they overlap.

    Args:
        first: of any cell.
        second: of any other.
        metric: id of the figure.

    Returns:
        The difference, without an interval where the figure has none; None if one of the two lacks the figure.
    """
    one, other = first.figures.get(metric), second.figures.get(metric)
    if one is None or other is None:
        return None
    delta = one.value - other.value
    if len(one.without) == len(other.without) == GROUPS:
        if have_same_noise(first, second):
            interval = jackknife_interval(delta, [a - b for a, b in zip(one.without, other.without, strict=True)])
            assert interval is not None
            return Difference(delta, interval.low, interval.high)
        half = hypot(_half_width(one), _half_width(other))
        return Difference(delta, delta - half, delta + half)
    return Difference(delta, *_from_full_precision(first, second, metric))


def mean_difference(pairs: Sequence[tuple[Record, Record]], metric: str) -> Difference | None:
    """Return what one row has more than another on average over seeds.

    The interval comes from the variances of all seeds together. It is over the images drawn; what calibration adds is
    seen in whether the seeds agree, and only then is the difference conclusive.

    Args:
        pairs: for each seed, a cell of the one row and one of the other.
        metric: id of the figure.

    Returns:
        The mean difference; None if there is no pair, or a cell lacks the figure.
    """
    found = [difference(first, second, metric) for first, second in pairs]
    differences = [each for each in found if each is not None]
    if not found or len(differences) < len(found):
        return None
    delta = sum(each.delta for each in differences) / len(differences)
    seeds_agree = len({(each.delta > 0) - (each.delta < 0) for each in differences}) == 1
    halves = [(each.high - each.low) / 2 for each in differences if each.low is not None and each.high is not None]
    if len(halves) < len(differences):
        return Difference(delta, None, None, len(differences), seeds_agree)
    half = hypot(*halves) / len(halves)
    return Difference(delta, delta - half, delta + half, len(differences), seeds_agree)


def have_same_noise(first: Record, second: Record) -> bool:
    """Whether image i of both cells was sampled from the same noise by the same sampler."""
    return (
        (first.seed, first.samples) == (second.seed, second.samples)
        and first.description.get("workload") == second.description.get("workload")
        and not _is_of_other_noise(first)
        and not _is_of_other_noise(second)
    )


def _is_of_other_noise(record: Record) -> bool:
    method = record.description.get("method")
    settings = method.get("settings") if isinstance(method, dict) else None
    if record.method != EXTERNAL or not isinstance(settings, dict):
        return False
    return settings.get("images") is not None and not settings.get("same_noise")


def _half_width(figure: Figure) -> float:
    interval = jackknife_interval(figure.value, figure.without)
    return 0.0 if interval is None else (interval.high - interval.low) / 2


def _from_full_precision(first: Record, second: Record, metric: str) -> tuple[float | None, float | None]:
    """Return the ends of an interval that holds 0 where the intervals of the two differences overlap."""
    if first.baseline != second.baseline:
        return None, None
    ends = [_ends(record, metric) for record in (first, second)]
    (low, high), (other_low, other_high) = ends
    if low is None or high is None or other_low is None or other_high is None:
        return None, None
    return low - other_high, high - other_low


def _ends(record: Record, metric: str) -> tuple[float | None, float | None]:
    figure = record.figures[metric]
    return (0.0, 0.0) if record.is_full_precision and figure.delta is None else (figure.low, figure.high)
