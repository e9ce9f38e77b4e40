"""The extractors ``inception`` and ``inception-clean``: one network, two ways to resize for it.

The network is torch-fidelity's port of the TensorFlow graph of 2015-12-05 that FID was defined with (Heusel et al.
2017, arXiv 1706.08500). Both extractors feed it (x - 128) / 128 at 299x299; torch-fidelity and clean-fid do the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from qbench.errors import DataError, StageError
from qbench.metrics.extractor import Extractor
from qbench.settings import Settings
from qbench.workloads.assets import FETCH_FOR_METRICS, Asset
from qbench.workloads.file_digests import remembered_digest
from qbench.workloads.published_files import INCEPTION

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

    from qbench.metrics.extractor import Extract

PUBLISHED = INCEPTION
SPATIAL_CHANNELS = 7
_UP_TO_SPATIAL = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "MaxPool_1",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "MaxPool_2",
    "Mixed_5b",
    "Mixed_5c",
    "Mixed_5d",
    "Mixed_6a",
    "Mixed_6b",
    "Mixed_6c",
    "Mixed_6d",
)
_UP_TO_POOLED = ("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool")


class InceptionSettings(Settings):
    """Settings of the extractors, and of metrics that have no more than these."""

    weights: Annotated[
        str | None,
        Field(
            description="path of a state dict of torch-fidelity's Inception network, to use in place of the published "
            "weights; figures are then no FID, IS or KID that could be compared with a paper's"
        ),
    ] = None


class Inception(Extractor):
    """Features of images that are resized as TensorFlow 1 does, bilinearly, which is what FID was defined with.

    ``pooled`` [2048] is what FID and KID are computed from. ``spatial`` [17 * 17 * 7] is what sFID is computed from:
    the first 7 channels of the map that the graph calls mixed_6/conv, in the order height, width, channel (Nash et al.
    2021, arXiv 2103.03841; the evaluator of guided-diffusion). ``logits`` [1008] are without bias, as for IS.
    """

    title = "Inception network of 2015-12-05, TensorFlow's bilinear resizing"
    paper = "Szegedy et al. 2016, arXiv 1512.00567"
    settings_class = InceptionSettings
    settings: InceptionSettings
    features = ("pooled", "spatial", "logits")

    def assets(self) -> Sequence[Asset]:
        """Return the published weights, unless others are named."""
        title = "Inception network of 2015-12-05 in torch-fidelity's port"
        return (Asset(title, PUBLISHED, PUBLISHED.size),) if self.settings.weights is None else ()

    @cached_property
    def _path(self) -> Path:
        for asset in self.assets():
            return asset.require(FETCH_FOR_METRICS)
        return Path(self.settings.weights or "").expanduser()

    @cached_property
    def _digest(self) -> str:
        return remembered_digest(self._path)

    def weights(self) -> Mapping[str, str]:
        """Return the digest of the weights, under the published name only if they are the published ones."""
        return {PUBLISHED.file_name if PUBLISHED.is_it(self._digest) else "other Inception weights": self._digest}

    def describe(self) -> dict[str, Any]:
        """Return what identifies it, and whether its weights are the published ones; where they lie is left out."""
        described = super().describe()
        del described["settings"]["weights"]
        return {**described, "published_weights": PUBLISHED.is_it(self._digest)}

    def load(self, device: torch.device) -> Extract:
        """Return the feature function; grey images count as colour images of three equal channels.

        Raises:
            DataError: the weights are missing, damaged or of another network.
        """
        network = _network(self._path).to(device)

        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            return _features(network, self.resized(_as_colour(images), device))

        return extract

    def resized(self, images: Tensor, device: torch.device) -> Tensor:
        """Return uint8 images [batch, 3, height, width] as float32 [batch, 3, 299, 299] in 0..255 on a device."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        return interpolate_bilinear_2d_like_tensorflow1x(  # type: ignore[no-any-return]
            images.to(device).float(), size=(299, 299), align_corners=False
        )


class CleanInception(Inception):
    """The same features of images that are resized as clean-fid does.

    Source: Parmar et al. 2022, arXiv 2104.11222: bicubic with antialiasing, channel by channel, and not rounded.
    """

    title = "Inception network of 2015-12-05, clean-fid's resizing"
    paper = "the resizing: Parmar et al. 2022, arXiv 2104.11222"

    def resized(self, images: Tensor, device: torch.device) -> Tensor:
        """Return uint8 images [batch, 3, height, width] as float32 [batch, 3, 299, 299] in 0..255 on a device."""
        import numpy as np
        import torch
        from cleanfid.resize import build_resizer

        resize = build_resizer("clean")
        resized = np.stack([resize(image) for image in images.permute(0, 2, 3, 1).cpu().numpy()])
        return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(device)


def _network(path: Path) -> Module:
    from io import BytesIO

    import torch
    from torch_fidelity import FeatureExtractorInceptionV3

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # The network's constructor unpickles whatever it is given, so it is given what was read without running code.
        safe = BytesIO()
        torch.save(state, safe)
        safe.seek(0)
        network: Module = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=safe)
    except Exception as error:  # there is no one error for all that can be wrong with a file
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} does not hold the weights of torch-fidelity's Inception network ({reason[:200]})"
        ) from error
    return network


def _as_colour(images: Tensor) -> Tensor:
    if images.shape[1] not in (1, 3):
        raise StageError(f"the Inception network sees grey and colour images, not images of {images.shape[1]} channels")
    return images.expand(-1, 3, -1, -1)


def _features(network: Module, images: Tensor) -> Mapping[str, Tensor]:
    """Return the features of float32 images [batch, 3, 299, 299] in 0..255."""
    x = (images - 128) / 128
    for name in _UP_TO_SPATIAL:
        x = network.get_submodule(name)(x)
    # The first branch of a block comes first in its output.
    spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
    for name in _UP_TO_POOLED:
        x = network.get_submodule(name)(x)
    pooled = x.flatten(1)
    return {"pooled": pooled, "spatial": spatial, "logits": pooled @ network.get_parameter("fc.weight").T}
