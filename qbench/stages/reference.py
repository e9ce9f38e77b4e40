"""Stage ``reference``: statistics of a workload's real images under an extractor."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from qbench.metrics.extractor import Extractor
from qbench.stages.stage import Stage, Work
from qbench.workload import ReferenceSet, Workload

FILE = "reference.safetensors"


@dataclass(frozen=True)
class Reference(Stage):
    """Statistics of the real images, in the store like everything else.

    Attributes:
        workload: whose real images.
        extractor: which features.
    """

    workload: Workload
    extractor: Extractor
    kind: ClassVar[str] = "reference"

    @cached_property
    def _set(self) -> ReferenceSet:
        return self.workload.reference(self.extractor.name, self.extractor.weights())

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self._set.name} under {self.extractor.name}"

    def parameters(self) -> dict[str, Any]:
        """What the images are, the extractor, and the digest of their statistics."""
        return {
            "name": self._set.name,
            "samples": self._set.samples,
            "statistics": self._set.digest,
            "extractor": self.extractor.describe(),
        }

    def compute(self, work: Work) -> None:
        """Write ``<feature>.mean`` [D] and ``<feature>.cov`` [D, D], float64."""
        shutil.copyfile(Path(self._set.path), work.folder / FILE)
