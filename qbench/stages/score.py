"""Stage ``score``: one metric of one cell, with its difference from full precision."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.errors import StageError
from qbench.metrics.metric import Against, Metric, RowsMetric
from qbench.stages.features import Features, feature_file
from qbench.stages.reference import FILE as REFERENCE_FILE
from qbench.stages.reference import Reference
from qbench.stages.sample import FILE as IMAGES_FILE
from qbench.stages.sample import Sample
from qbench.stages.stage import Stage, Work

if TYPE_CHECKING:
    from qbench.metrics.metric import Gaussian
    from qbench.metrics.rows import Rows

FILE = "score.json"
WITHOUT_FILE = "without.json"
Shard = Sample | Features


@dataclass(frozen=True)
class Score(Stage):
    """A figure.

    Attributes:
        metric: the metric.
        shards: images or features of the cell, in the order of sample indices.
        baseline: the same figure of the full-precision cell; None in full precision, and for a metric that compares
            with full precision already.
        paired: images or features of the full-precision cell, for a metric that compares with it.
        reference: the real images, if the metric compares with them.
    """

    metric: Metric
    shards: tuple[Shard, ...]
    baseline: Score | None
    paired: tuple[Shard, ...]
    reference: Reference | None
    kind: ClassVar[str] = "score"
    revision: ClassVar[int] = 2

    @property
    def title(self) -> str:
        """A few words."""
        first = self.shards[0]
        return f"{self.metric.name} of {(first.sample if isinstance(first, Features) else first).cell_title}"

    @property
    def work(self) -> float:
        """What its shards count: images, or denoiser calls where it reads images themselves."""
        return sum(shard.work for shard in self.shards)

    @property
    def group(self) -> str:
        """One metric."""
        return self.metric.name

    def parameters(self) -> dict[str, Any]:
        """The metric."""
        return {"metric": self.metric.describe()}

    def inputs(self) -> Mapping[str, Stage]:
        """Shards of the cell; the figure or shards of full precision; the reference."""
        named: dict[str, Stage] = {f"cell-{index:06}": shard for index, shard in enumerate(self.shards)}
        named |= {f"full-precision-{index:06}": shard for index, shard in enumerate(self.paired)}
        if self.baseline is not None:
            named["baseline"] = self.baseline
        if self.reference is not None:
            named["reference"] = self.reference
        return named

    def compute(self, work: Work) -> None:
        """Write ``score.json``: value, samples, delta, low, high; what does not exist is left out.

        The difference of a metric that compares with full precision is the figure itself. ``without.json`` holds the
        figure without each group of images, for the intervals of cells that are compared with this one.

        Raises:
            StageError: the figure is not finite.
        """
        from qbench.metrics.confidence import groups_for, jackknife_interval

        samples = self._rows(work, "cell-")
        groups = groups_for(len(samples)) if self.metric.has_interval else 0
        against = self._against(work)
        try:
            measured = self.metric.measure(samples, against, groups)
        except StageError:  # without a group there may be too few images, and with all of them a figure all the same
            measured, groups = self.metric.measure(samples, against, 0), 0
        score: dict[str, float] = {"value": measured.value, "samples": len(samples)}
        if self.baseline is not None or self.paired:
            baseline, without = (0.0, [0.0] * groups) if self.baseline is None else _read_baseline(work)
            score["delta"] = measured.value - baseline
            pairs = zip(measured.without, without, strict=True) if measured.without and without else ()
            differences = [own - other for own, other in pairs]
            interval = jackknife_interval(score["delta"], differences)
            if interval is not None:
                score |= {"low": interval.low, "high": interval.high}
        for name, number in [*score.items(), *(("without a group", each) for each in measured.without)]:
            if not math.isfinite(number):
                raise StageError(f"{self.metric.name} is not finite for these images ({name}: {number})")
        for file, content in ((FILE, score), (WITHOUT_FILE, measured.without)):
            text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
            (work.folder / file).write_text(text + "\n", encoding="utf-8")

    def _against(self, work: Work) -> Gaussian | Rows | None:
        if self.metric.against is Against.FULL_PRECISION:
            return self._rows(work, "full-precision-")
        return None if self.reference is None else self._reference(work)

    def _rows(self, work: Work, prefix: str) -> Rows:
        import numpy as np

        from qbench.metrics.rows import Rows

        need = self.metric.need
        file = IMAGES_FILE if need.extractor is None else feature_file(need.feature)
        artefacts = [artefact for name, artefact in sorted(work.inputs.items()) if name.startswith(prefix)]
        return Rows([np.load(artefact.file(file), mmap_mode="r", allow_pickle=False) for artefact in artefacts])

    def _reference(self, work: Work) -> Gaussian | Rows:
        import numpy as np
        from safetensors import safe_open

        from qbench.metrics.metric import Gaussian
        from qbench.metrics.rows import Rows

        feature, artefact = self.metric.need.feature, work.inputs["reference"]
        if isinstance(self.metric, RowsMetric):
            return Rows([np.load(artefact.file(feature_file(feature)), mmap_mode="r", allow_pickle=False)])
        with safe_open(artefact.file(REFERENCE_FILE), framework="numpy") as file:
            if f"{feature}.mean" not in file.keys():  # noqa: SIM118 (it is no mapping)
                raise StageError(f"the reference has no statistics of {feature!r}, which {self.metric.name} needs")
            return Gaussian(*(file.get_tensor(f"{feature}.{part}") for part in ("mean", "cov", "root")))


def _read_baseline(work: Work) -> tuple[float, list[float]]:
    artefact = work.inputs["baseline"]
    score, without = (json.loads(artefact.file(name).read_text(encoding="utf-8")) for name in (FILE, WITHOUT_FILE))
    return score["value"], without
