"""Stage ``score``: one metric of one cell, with its difference from full precision."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.errors import StageError
from qbench.metrics.metric import Against, Gaussian, Metric
from qbench.stages.features import FILE as FEATURES_FILE
from qbench.stages.features import Features
from qbench.stages.reference import FILE as REFERENCE_FILE
from qbench.stages.reference import Reference
from qbench.stages.sample import FILE as IMAGES_FILE
from qbench.stages.sample import Sample
from qbench.stages.stage import Stage, Work

if TYPE_CHECKING:
    from numpy import bool_, float64
    from numpy.typing import NDArray

FILE = "score.json"
Shard = Sample | Features


@dataclass(frozen=True)
class Score(Stage):
    """A figure.

    Attributes:
        metric: the metric.
        shards: images or features of the cell, in the order of sample indices.
        baseline: the same of the full-precision cell; the cell's own where it is in full precision.
        reference: the real images, if the metric compares with them.
        is_full_precision: whether the cell is its own baseline, so that there is no difference to tell.
    """

    metric: Metric
    shards: tuple[Shard, ...]
    baseline: tuple[Shard, ...]
    reference: Reference | None
    is_full_precision: bool
    kind: ClassVar[str] = "score"

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
        """Shards of the cell, of full precision, and the reference."""
        named: dict[str, Stage] = {f"cell-{index:06}": shard for index, shard in enumerate(self.shards)}
        if not self.is_full_precision:
            named |= {f"full-precision-{index:06}": shard for index, shard in enumerate(self.baseline)}
        if self.reference is not None:
            named["reference"] = self.reference
        return named

    def compute(self, work: Work) -> None:
        """Write ``score.json``: value, samples, delta, low, high; what does not exist is left out.

        The difference of a metric that compares with full precision is the figure itself.

        Raises:
            StageError: the figure is not finite.
        """
        from qbench.metrics.confidence import paired_interval

        samples = self._rows(work, "cell-")
        baseline = samples if self.is_full_precision else self._rows(work, "full-precision-")
        reference = self._reference(work)
        everything = _all(len(samples))

        def value(rows: NDArray[float64], keep: NDArray[bool_]) -> float:
            if self.metric.against is Against.FULL_PRECISION:
                return self.metric.compute(rows[keep], baseline[keep])
            return self.metric.compute(rows[keep], reference)

        def difference(keep: NDArray[bool_]) -> float:
            if self.metric.against is Against.FULL_PRECISION:  # the figure is a difference already
                return value(samples, keep)
            return value(samples, keep) - value(baseline, keep)

        score: dict[str, float] = {"value": value(samples, everything), "samples": len(samples)}
        if not self.is_full_precision:
            score["delta"] = difference(everything)
            interval = paired_interval(score["delta"], difference, len(samples))
            if interval is not None:
                score |= {"low": interval.low, "high": interval.high}
        for name, number in score.items():
            if not math.isfinite(number):
                raise StageError(f"{self.metric.name} is not finite for these images ({name}: {number})")
        text = json.dumps(score, indent=1, sort_keys=True, allow_nan=False)
        (work.folder / FILE).write_text(text + "\n", encoding="utf-8")

    def _rows(self, work: Work, prefix: str) -> NDArray[float64]:
        import numpy as np
        from safetensors.numpy import load_file

        artefacts = [artefact for name, artefact in sorted(work.inputs.items()) if name.startswith(prefix)]
        if self.metric.need.extractor is None:
            images = [np.load(artefact.file(IMAGES_FILE), allow_pickle=False) for artefact in artefacts]
            return np.concatenate(images).astype(np.float64) / 127.5 - 1
        feature = self.metric.need.feature
        rows = [load_file(artefact.file(FEATURES_FILE))[feature] for artefact in artefacts]
        return np.concatenate(rows).astype(np.float64)

    def _reference(self, work: Work) -> Gaussian | None:
        if "reference" not in work.inputs:
            return None
        from safetensors.numpy import load_file

        tensors = load_file(work.inputs["reference"].file(REFERENCE_FILE))
        feature = self.metric.need.feature
        return Gaussian(tensors[f"{feature}.mean"], tensors[f"{feature}.cov"])


def _all(count: int) -> NDArray[bool_]:
    import numpy as np

    return np.ones(count, dtype=bool)
