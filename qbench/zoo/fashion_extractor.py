"""The extractor ``fashion``: features of the small Fashion-MNIST classifier that ships with qbench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from qbench.identity import file_digest
from qbench.metrics.extractor import Extractor
from qbench.zoo.paths import weights_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qbench.metrics.extractor import Extract


class FashionExtractor(Extractor):
    """Pooled and spatial features and logits of a classifier of 16x16 Fashion-MNIST images; see its card."""

    title = "small Fashion-MNIST classifier, 16x16 grey images"
    features = ("pooled", "spatial", "logits")
    image_shape = (1, 16, 16)

    @cached_property
    def _digest(self) -> str:
        return file_digest(weights_path("fashion-features"))

    def weights(self) -> Mapping[str, str]:
        """Return the digest of the shipped weights."""
        return {"fashion-features.safetensors": self._digest}

    def load(self, device: torch.device) -> Extract:
        """Return the feature function."""
        from qbench.diffusion.codecs import from_uint8
        from qbench.zoo.networks import load_fashion_features

        network = load_fashion_features().to(device)

        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            found = network(from_uint8(images.to(device)))
            return {"pooled": found.pooled, "spatial": found.spatial, "logits": found.logits}

        return extract
