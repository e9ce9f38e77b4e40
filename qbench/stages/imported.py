"""Stage ``sample`` for images that were made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qbench.method import Method
from qbench.stages.sample import FILE, Sample
from qbench.stages.stage import Stage, Work


@dataclass(frozen=True)
class Imported(Sample):
    """Images start to stop - 1 of a method that brings its own.

    Attributes:
        method: whose images they are.
    """

    method: Method

    @property
    def cell_title(self) -> str:
        """A few words for all shards together."""
        return f"{self.workload.name}, {self.method.name}, seed {self.seed}"

    @property
    def group(self) -> str:
        """Reading is no sampling."""
        return "made elsewhere"

    def parameters(self) -> dict[str, Any]:
        """The images and which of them; of the workload only what they must fit."""
        shape = list(self.workload.image_shape)
        return {"method": self.method.describe(), "image_shape": shape, "start": self.start, "stop": self.stop}

    def inputs(self) -> Mapping[str, Stage]:
        """Nothing: no denoiser is known."""
        return {}

    def compute(self, work: Work) -> None:
        """Write uint8 images [count, channels, height, width].

        Raises:
            DataError: an image cannot be read, or changed since the plan was made.
        """
        import numpy as np

        images = self.method.images()
        assert images is not None
        found = images.read(range(self.start, self.stop))
        np.save(work.folder / FILE, found, allow_pickle=False)
        work.report(self.work)
