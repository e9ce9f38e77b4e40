"""Stage ``features``: what an extractor sees in one shard of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.identity import digest
from qbench.metrics.extractor import Extractor
from qbench.stages.array_file import ArrayFile
from qbench.stages.sample import FILE as IMAGES_FILE
from qbench.stages.sample import Sample
from qbench.stages.stage import Stage, Work

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray


def feature_file(name: str) -> str:
    """Return the file name of a feature."""
    return f"{name}.npy"


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
    revision: ClassVar[int] = 2

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
        """The extractor, and the captions if it looks at them."""
        parameters: dict[str, Any] = {"extractor": self.extractor.describe()}
        if self.extractor.needs_captions:
            parameters["captions"] = digest({"captions": list(self._captions())})
        return parameters

    def inputs(self) -> Mapping[str, Stage]:
        """The images."""
        return {"sample": self.sample}

    def compute(self, work: Work) -> None:
        """Write each feature, float32 [count, D]; that the images fit the extractor was checked with the plan."""
        import numpy as np

        images = np.load(work.inputs["sample"].file(IMAGES_FILE), mmap_mode="r", allow_pickle=False)
        captions = self._captions() if self.extractor.needs_captions else None
        extract_to(work.folder, self.extractor, images, captions, work)

    def _captions(self) -> Sequence[str]:
        return self.sample.workload.captions(range(self.sample.start, self.sample.stop))


def extract_to(
    folder: Path, extractor: Extractor, images: NDArray[uint8], captions: Sequence[str] | None, work: Work
) -> None:
    """Write the features of images, each into a file of its own, float32 [count, D].

    Args:
        folder: where to.
        extractor: the extractor.
        images: uint8 [count, channels, height, width].
        captions: one for each image, or None.
        work: whose batch size, device and progress count.
    """
    import numpy as np
    import torch

    from qbench.stages.batching import Batches

    device = work.runtime.torch_device()
    extract = extractor.load(device)
    files: dict[str, ArrayFile] = {}
    with ExitStack() as stack:

        @torch.inference_mode()
        def run(batch: range, _: Callable[[], None]) -> None:
            rows = slice(batch.start, batch.stop)
            found = extract(torch.from_numpy(images[rows].copy()), None if captions is None else captions[rows])
            for name in extractor.features:
                values = found[name].to("cpu", torch.float32).numpy()
                if name not in files:
                    shape = (len(images), *values.shape[1:])
                    files[name] = stack.enter_context(ArrayFile(folder / feature_file(name), np.float32, shape))
                files[name].write(batch, values)
            work.report(len(batch))

        Batches(work, f"features by {extractor.name}", device).run(len(images), run)
