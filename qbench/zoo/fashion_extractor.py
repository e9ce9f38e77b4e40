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
    """Pooled and spatial features and logits of a classifier of Fashion-MNIST images; see its card.

    Images of 32x32 pixels are what ``tiny-ldm`` and its siblings make: 28x28 with two black pixels around them. They
    are shrunk to 16x16 as the classifier's training images were, so that one set of statistics holds for all.
    """

    title = "small Fashion-MNIST classifier, 16x16 grey images, or 32x32 shrunk to them"
    features = ("pooled", "spatial", "logits")
    image_shapes = ((1, 16, 16), (1, 32, 32))

    @cached_property
    def _digest(self) -> str:
        return file_digest(weights_path("fashion-features"))

    def weights(self) -> Mapping[str, str]:
        """Return the digest of the shipped weights."""
        return {"fashion-features.safetensors": self._digest}

    def load(self, device: torch.device) -> Extract:
        """Return the feature function."""
        import torch

        from qbench.diffusion.codecs import from_uint8
        from qbench.zoo.fashion_mnist import shrink, unpad
        from qbench.zoo.networks import load_fashion_features

        network = load_fashion_features().to(device)

        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            if images.shape[1:] == (1, 32, 32):
                images = torch.from_numpy(shrink(unpad(images.cpu().numpy())))
            found = network(from_uint8(images.to(device)))
            return {"pooled": found.pooled, "spatial": found.spatial, "logits": found.logits}

        return extract
