"""Stage ``reference``: what an extractor sees in a workload's real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.metrics.extractor import Extractor
from qbench.stages.array_file import ArrayFile
from qbench.stages.features import extract_to, feature_file
from qbench.stages.stage import Stage, Work
from qbench.workload import ImageSet, ReferenceSet, Workload

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

    from qbench.metrics.metric import Gaussian

FILE = "reference.safetensors"


@dataclass(frozen=True)
class Reference(Stage):
    """Statistics of the real images, factored once for all cells; and their features where the images are at hand.

    Attributes:
        workload: whose real images.
        extractor: which features.
    """

    workload: Workload
    extractor: Extractor
    kind: ClassVar[str] = "reference"
    revision: ClassVar[int] = 2

    @cached_property
    def _set(self) -> ReferenceSet | ImageSet:
        return self.workload.reference(self.extractor.name, self.extractor.weights())

    @property
    def has_features(self) -> bool:
        """Whether the images' features are kept, not only statistics of them."""
        return isinstance(self._set, ImageSet)

    @cached_property
    def features(self) -> Sequence[str]:
        """The extractor's features that it has, statistics not read.

        Raises:
            DataError: the file of statistics is damaged, or has none of them.
        """
        from qbench.metrics.statistics_file import features_in

        if isinstance(self._set, ImageSet):
            return self.extractor.features
        return features_in(Path(self._set.path), self.extractor.features)

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self._set.name} under {self.extractor.name}"

    @property
    def work(self) -> float:
        """Images."""
        return float(self._set.count) if isinstance(self._set, ImageSet) else 1.0

    @property
    def group(self) -> str:
        """One extractor, for images or for statistics."""
        return f"{self.extractor.name} {'images' if self.has_features else 'statistics'}"

    def parameters(self) -> dict[str, Any]:
        """What the images are, the extractor, and the digest of the images or their statistics."""
        found = self._set
        of_set: dict[str, Any] = (
            {"samples": found.count, "images": found.digest}
            if isinstance(found, ImageSet)
            else {"samples": found.samples, "statistics": found.digest}
        )
        return {"name": found.name, **of_set, "extractor": self.extractor.describe()}

    def compute(self, work: Work) -> None:
        """Write ``<feature>.mean`` [D], ``<feature>.cov`` [D, D] and ``<feature>.root`` [D, rank], float64.

        Raises:
            DataError: the statistics are none, or the images cannot be read.
            StageError: the features of an image are not finite.
        """
        from safetensors.numpy import save_file

        from qbench.metrics.frechet import factored

        found = self._set
        statistics = (
            self._of_images(found, work) if isinstance(found, ImageSet) else _of_file(Path(found.path), self.extractor)
        )
        tensors = {}
        for feature, each in statistics.items():
            complete = factored(each)
            assert complete.root is not None
            tensors[f"{feature}.mean"] = complete.mean
            tensors[f"{feature}.cov"] = complete.covariance
            tensors[f"{feature}.root"] = complete.root.copy()
        save_file(tensors, work.folder / FILE)

    def _of_images(self, found: ImageSet, work: Work) -> dict[str, Gaussian]:
        import numpy as np

        from qbench.metrics.frechet import gaussian_of
        from qbench.metrics.rows import Rows

        # Read piece by piece into a file: a reference set need not fit in memory.
        first = found.read([0])
        aside = work.folder / "images.npy"
        with ArrayFile(aside, np.uint8, (found.count, *first.shape[1:])) as file:
            for start in range(0, found.count, work.runtime.rows):
                indices = range(start, min(start + work.runtime.rows, found.count))
                file.write(indices, found.read(indices))
        images: NDArray[uint8] = np.load(aside, mmap_mode="r", allow_pickle=False)
        extract_to(work.folder, self.extractor, images, None, work)
        del images
        aside.unlink()
        return {
            feature: gaussian_of(
                Rows([np.load(work.folder / feature_file(feature), mmap_mode="r", allow_pickle=False)])
            )
            for feature in self.extractor.features
        }


def _of_file(path: Path, extractor: Extractor) -> dict[str, Gaussian]:
    from qbench.metrics.statistics_file import read_all_statistics

    return read_all_statistics(path, extractor.features)
