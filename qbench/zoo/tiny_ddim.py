"""The workload ``tiny-ddim``: a small pixel-space model, trained on Fashion-MNIST, that ships with qbench."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated

from pydantic import Field

from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.workload import ImageSet, LoadedWorkload, ReferenceSet, Workload, WorkloadSettings
from qbench.zoo.paths import weights_path


class TinyDDIMSettings(WorkloadSettings):
    """Settings of tiny-ddim."""

    sampler: Annotated[SamplerSettings, Field(description="how images are sampled")] = SamplerSettings(steps=20)


class TinyDDIM(Workload):
    """Unconditional denoiser of 16x16 Fashion-MNIST images in blocks of 2x2 pixels; see its card."""

    settings_class = TinyDDIMSettings
    title = "UNet of 1.6 M parameters on 16x16 Fashion-MNIST, DDIM; runs anywhere in seconds"
    latent_shape = (4, 8, 8)
    image_shape = (1, 16, 16)

    @cached_property
    def _digest(self) -> str:
        return file_digest(weights_path("tiny-ddim"))

    def weights(self) -> Mapping[str, str]:
        """Return the digest of the shipped weights."""
        return {"tiny-ddim.safetensors": self._digest}

    def load(self) -> LoadedWorkload:
        """Load the shipped model."""
        from qbench.diffusion.codecs import PixelUnshuffle
        from qbench.diffusion.unet_structure import unet_structure
        from qbench.zoo.networks import load_tiny_ddim

        unet = load_tiny_ddim()
        return LoadedWorkload(unet, unet_structure(unet), PixelUnshuffle(2))

    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ReferenceSet:
        """Return the shipped statistics of the 60,000 training images under ``fashion``."""
        from qbench.zoo.reference import read_reference

        shipped = read_reference(weights_path("fashion-train"))
        if shipped.extractor_sha256 not in extractor_weights.values():
            raise DataError(
                f"the workload {self.name!r} ships reference statistics for the extractor 'fashion' only, "
                f"so a metric on {extractor!r} cannot be computed on it"
            )
        return ReferenceSet(shipped.name, shipped.samples, shipped.sha256, str(shipped.path))

    def calibration_images(self) -> ImageSet:
        """Return the shipped training images."""
        from qbench.zoo.calibration_images import read_calibration_images

        return read_calibration_images(weights_path("fashion-calibration"))
