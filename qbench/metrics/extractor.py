"""The contract of a feature extractor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.plugin import Plugin

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Features = Callable[[Tensor], Mapping[str, Tensor]]


class Extractor(Plugin):
    """Maps images to named features, each image by itself.

    Attributes:
        features: dimensions of each feature by its name.
        image_shape: the (channels, height, width) it takes.
    """

    features: ClassVar[Mapping[str, int]]
    image_shape: ClassVar[tuple[int, int, int]]

    @abstractmethod
    def weights(self) -> Mapping[str, str]:
        """Return the SHA-256 of each weight file by its name, without loading any."""

    @abstractmethod
    def load(self, device: torch.device) -> Features:
        """Return a function from uint8 images [batch, channels, height, width] to features [batch, D] by name.

        Raises:
            DataError: a weight file is missing or damaged.
        """

    def describe(self) -> dict[str, Any]:
        """Return what identifies it: as for every plugin, with its weight files."""
        return {**super().describe(), "weights": dict(self.weights())}
