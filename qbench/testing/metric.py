"""``check_metric``: a metric under its contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbench.metrics.metric import Against, Gaussian, Metric, RowsMetric, SumMetric
from qbench.metrics.rows import Rows
from qbench.testing.plugin_clauses import SHARED
from qbench.testing.process_state import restored, stir
from qbench.testing.report import Clause, Report, examine
from qbench.testing.subject import Subject, find_subject

COUNT, GROUPS = 60, 5
IMAGE_SHAPE = (1, 16, 16)
FEATURES = 8
CLOSE = 1e-9
"""How far two ways to add up the same images may be apart, relative to the figure."""


@dataclass(frozen=True)
class MetricSubject(Subject[Metric]):
    """A metric with its settings, and what it is to measure.

    Attributes:
        row_shape: shape of an image or a feature.
        changed: what of the process's state measuring changed.
    """

    row_shape: tuple[int, ...] = IMAGE_SHAPE
    changed: list[str] = field(default_factory=list)

    def rows(self, sizes: tuple[int, ...], seed: int = 0) -> Rows:
        """Return made-up images or features in shards of some sizes; a seed stands for the same ones in all shards."""
        drawn = np.random.default_rng(seed).integers(0, 256, (COUNT, *self.row_shape), np.uint8)
        content: NDArray[Any] = drawn if self.make().need.extractor is None else drawn / 255
        return Rows(np.split(content, np.cumsum(sizes)[:-1]))

    def against(self, sizes: tuple[int, ...]) -> Gaussian | Rows | None:
        """Return what the metric compares with."""
        against = self.found.against
        if against is Against.NOTHING:
            return None
        others = self.rows(sizes, seed=1)
        if against is Against.FULL_PRECISION or issubclass(self.found, RowsMetric):
            return others
        flat = others[:].reshape(len(others), -1)
        return Gaussian(flat.mean(0), np.cov(flat, rowvar=False))

    def measure(self, sizes: tuple[int, ...] = (COUNT,), groups: int = 0, seed: int = 0) -> tuple[float, ...]:
        """Return the figure, and the figures without each group, with other global random numbers for each seed."""
        with restored():
            stir(seed)
            with restored() as changed:
                found = self.make().measure(self.rows(sizes), self.against(sizes), groups)
        self.changed.extend(changed)
        return found.value, *found.without


def _declaration_faults(subject: MetricSubject) -> Iterator[str]:
    metric, found = subject.make(), subject.found
    if getattr(found, "direction", None) not in ("lower", "higher"):
        yield "it does not say which direction is better"
    if not isinstance(getattr(found, "against", None), Against):
        yield "it does not say what it compares with"
    for name in ("need", "protocol"):
        if not getattr(metric, name, None):
            yield f"it has no {name}"


def _figure_faults(subject: MetricSubject) -> Iterator[str]:
    value = subject.measure()[0]
    if type(value) is not float or not np.isfinite(value):
        yield f"the figure of {COUNT} made-up images is {value!r}, no finite float"


def _repetition_faults(subject: MetricSubject) -> Iterator[str]:
    if subject.measure(seed=1) != subject.measure(seed=2):
        yield "the same images have two figures"


def _shard_faults(subject: MetricSubject) -> Iterator[str]:
    whole, parts = subject.measure()[0], subject.measure((7, COUNT - 20, 13))[0]
    if not _are_close(whole, parts):
        yield f"the figure is {whole:.12g} for images in one shard and {parts:.12g} for the same in three"
    if not issubclass(subject.found, SumMetric) or subject.found.measure is not SumMetric.measure:
        return
    metric = subject.make()
    assert isinstance(metric, SumMetric)
    images, against = subject.rows((COUNT,))[:], subject.against((COUNT,))
    others = against[:] if isinstance(against, Rows) else None

    def sums(rows: slice) -> Mapping[str, NDArray[np.float64]]:
        return metric.sums(images[rows], None if others is None else others[rows])

    total, first, rest = sums(slice(None)), sums(slice(23)), sums(slice(23, None))
    for name in total:
        if not np.allclose(total[name], first[name] + rest[name], rtol=CLOSE, atol=CLOSE):
            yield f"the sum {name!r} of all images is not that of some plus that of the others"


def _group_faults(subject: MetricSubject) -> Iterator[str]:
    value, *without = subject.measure(groups=GROUPS)
    if not _are_close(value, subject.measure()[0]):
        yield "the figure depends on how many groups are asked for"
    if not subject.found.has_interval:
        return
    if len(without) != GROUPS:
        yield f"{GROUPS} groups were asked for, and it left out {len(without)}"
        return
    kept = subject.rows((COUNT,)).without(1, GROUPS)
    against = subject.against((COUNT,))
    paired = isinstance(against, Rows) and subject.found.against is Against.FULL_PRECISION
    others = against.without(1, GROUPS) if paired and isinstance(against, Rows) else against
    alone = subject.make().measure(kept, others, 0).value
    if not _are_close(alone, without[1]):
        yield f"without the second group it gives {without[1]:.12g}, and {alone:.12g} for these images alone"


def _process_faults(subject: MetricSubject) -> Iterator[str]:
    yield from (f"it changes {what}" for what in subject.changed)


def _are_close(first: float, second: float) -> bool:
    return abs(first - second) <= CLOSE * max(1.0, abs(first), abs(second))


CLAUSES: tuple[Clause[MetricSubject], ...] = (
    *SHARED,
    Clause(
        "declaration",
        "Give it need, against, direction and a protocol: what a reader must know to compare its figure.",
        _declaration_faults,
        is_ground=True,
    ),
    Clause(
        "figure",
        "Return one finite float, or raise StageError where there is no honest figure.",
        _figure_faults,
        is_ground=True,
    ),
    Clause("repeatable", "Draw at random with np.random.default_rng(seed).", _repetition_faults),
    Clause("shards", "Return sums over images, not means: how images come in shards must not matter.", _shard_faults),
    Clause("groups", "Image i is of group i mod groups; derive from SumMetric or RowsMetric.", _group_faults),
    Clause("process", "Use a generator of its own, and set nothing global.", _process_faults),
)


def check_metric(
    metric: str | type[Metric], *, settings: Mapping[str, Any] | None = None, row_shape: tuple[int, ...] | None = None
) -> Report:
    """Examine a metric on made-up images, or on made-up features from 0 to 1 where it needs an extractor's.

    Args:
        metric: public id of an installed metric, or a class.
        settings: written as in a suite.
        row_shape: shape of an image or of a feature; [1, 16, 16] and [8] by default.

    Returns:
        The clauses that hold: all of them.

    Raises:
        ContractViolation: clauses are broken; an AssertionError that says which, how, and what to do.
        PluginError: nobody offers the metric, or it cannot be imported.
    """
    found = find_subject("metric", Metric, metric, settings)
    if row_shape is None:
        need = getattr(found.found, "need", None)
        row_shape = IMAGE_SHAPE if getattr(need, "extractor", None) is None else (FEATURES,)
    subject = MetricSubject(found.kind, found.entry, found.found, found.settings, row_shape)
    return examine(found.title, CLAUSES, subject)
