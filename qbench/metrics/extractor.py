"""The contract of a feature extractor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.plugin import Plugin

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qbench.workloads.assets import Asset

    Extract = Callable[[Tensor, Sequence[str] | None], Mapping[str, Tensor]]


class Extractor(Plugin):
    """Maps images, and captions if it needs them, to named features, each image by itself.

    Attributes:
        features: names of the features.
        image_shapes: each (channels, height, width) that it takes; none for any size, grey or colour.
        needs_captions: whether it looks at each image's caption.
    """

    features: Sequence[str]
    image_shapes: ClassVar[tuple[tuple[int, int, int], ...]] = ()
    needs_captions: bool = False

    def takes(self, image_shape: tuple[int, ...]) -> bool:
        """Return whether images of a shape (channels, height, width) fit."""
        return not self.image_shapes or image_shape in self.image_shapes

    def shapes_in_words(self) -> str:
        """Return what it takes, for messages."""
        return " or ".join(map(str, self.image_shapes)) or "any"

    def assets(self) -> Sequence[Asset]:
        """Return the published files that it needs, be they at hand or not.

        Raises:
            DataError: its settings name weights that nobody published.
        """
        return ()

    @abstractmethod
    def weights(self) -> Mapping[str, str]:
        """Return the SHA-256 of each weight file by its name, without loading or fetching any.

        Raises:
            DataError: a weight file is missing.
        """

    @abstractmethod
    def load(self, device: torch.device) -> Extract:
        """Return a function from uint8 images [batch, channels, height, width] and captions to features by name.

        Features are float32 [batch, D]; the captions are None unless ``needs_captions``.

        Raises:
            DataError: a weight file is missing or damaged.
        """

    def describe(self) -> dict[str, Any]:
        """Return what identifies it: as for every plugin, with its weight files."""
        return {**super().describe(), "weights": dict(self.weights())}
