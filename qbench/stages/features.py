"""Stage ``features``: what an extractor sees in one shard of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from qbench.metrics.extractor import Extractor
from qbench.stages.sample import FILE as IMAGES_FILE
from qbench.stages.sample import Sample
from qbench.stages.stage import Stage, Work

FILE = "features.safetensors"


@dataclass(frozen=True)
class Features(Stage):
    """Features of a shard; apart from sampling, so that a metric added later samples nothing again.

    Attributes:
        extractor: with its weights.
        sample: the shard.
    """

    extractor: Extractor
    sample: Sample
    kind: ClassVar[str] = "features"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.extractor.name} of {self.sample.title}"

    @property
    def work(self) -> float:
        """Images."""
        return float(self.sample.stop - self.sample.start)

    @property
    def group(self) -> str:
        """One extractor."""
        return self.extractor.name

    def parameters(self) -> dict[str, Any]:
        """The extractor."""
        return {"extractor": self.extractor.describe()}

    def inputs(self) -> Mapping[str, Stage]:
        """The images."""
        return {"sample": self.sample}

    def compute(self, work: Work) -> None:
        """Write each feature, float32 [count, D]; that the images fit the extractor was checked with the plan."""
        import numpy as np
        import torch
        from safetensors.torch import save_file

        from qbench.stages.trajectory import batches

        images = np.load(work.inputs["sample"].file(IMAGES_FILE), allow_pickle=False)
        extract = self.extractor.load(work.runtime.torch_device())
        found: dict[str, list[torch.Tensor]] = {name: [] for name in self.extractor.features}
        with torch.inference_mode():
            for batch in batches(len(images), work.runtime.batch_size):
                features = extract(torch.from_numpy(images[batch.start : batch.stop]))
                for name, rows in found.items():
                    rows.append(features[name].to("cpu", torch.float32))
                work.report(len(batch))
        save_file({name: torch.cat(rows).contiguous() for name, rows in found.items()}, work.folder / FILE)
