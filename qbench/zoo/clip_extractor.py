"""The extractor ``fashion-clip`` and the metric ``clip-tiny``: how well tiny images fit their captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from qbench.identity import file_digest
from qbench.metrics.clip import CosineScore
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Need
from qbench.zoo.paths import TOKENIZER_FILES, weights_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qbench.metrics.extractor import Extract


class FashionCLIP(Extractor):
    """Unit-length embeddings of 32x32 grey images and of their captions, and the cosine between the two."""

    title = "image and text embeddings of a small open_clip model of Fashion-MNIST, 32x32 grey images"
    features = ("image", "text", "cosine")
    image_shapes = ((1, 32, 32),)
    needs_captions = True

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        return {each.name: file_digest(each) for each in (weights_path("clip-tiny"), *TOKENIZER_FILES)}

    def weights(self) -> Mapping[str, str]:
        """Return the digests of the shipped weights and of the tokenizer."""
        return self._digests

    def load(self, device: torch.device) -> Extract:
        """Return the feature function."""
        from qbench.diffusion.codecs import from_uint8
        from qbench.zoo.caption_tokenizer import load_tokenizer, tokens_of
        from qbench.zoo.text_models import load_clip_tiny

        network, tokenizer = load_clip_tiny().to(device), load_tokenizer()

        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            if captions is None:
                raise TypeError(f"{self.name} needs a caption for each image")
            pictures = from_uint8(images.to(device)).expand(-1, 3, -1, -1)
            image = network.encode_image(pictures, normalize=True)
            text = network.encode_text(tokens_of(captions, tokenizer).to(device), normalize=True)
            return {"image": image, "text": text, "cosine": (image * text).sum(dim=1, keepdim=True)}

        return extract


class CLIPTiny(CosineScore):
    """Mean cosine of an image and its caption under ``fashion-clip``, times 100; a negative cosine counts as 0."""

    title = "how well images of garments fit their captions"
    need = Need("fashion-clip", "cosine")
    protocol = (
        "mean over samples of 100 max(cosine, 0) between embeddings of the uint8-rounded image and of its caption "
        "under clip-tiny, a model of 0.3 M parameters trained on Fashion-MNIST; this is not CLIP score"
    )
