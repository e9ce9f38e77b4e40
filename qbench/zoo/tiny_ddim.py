"""The workload ``tiny-ddim``: a small pixel-space model, trained on Fashion-MNIST, that ships with qbench."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.workload import ImageSet, LoadedWorkload, WorkloadSettings
from qbench.zoo.fashion_workload import FashionWorkload
from qbench.zoo.paths import weights_path


class TinyDDIMSettings(WorkloadSettings):
    """Settings of tiny-ddim."""

    sampler: Annotated[SamplerSettings, Field(description="how images are sampled")] = SamplerSettings(steps=20)


class TinyDDIM(FashionWorkload):
    """Unconditional denoiser of 16x16 Fashion-MNIST images in blocks of 2x2 pixels; see its card."""

    settings_class = TinyDDIMSettings
    title = "UNet of 1.6 M parameters on 16x16 Fashion-MNIST, DDIM; runs anywhere in seconds"
    latent_shape = (4, 8, 8)
    image_shape = (1, 16, 16)
    weight_names = ("tiny-ddim",)

    def load(self) -> LoadedWorkload:
        """Load the shipped model."""
        from qbench.diffusion.codecs import PixelUnshuffle
        from qbench.diffusion.unet_structure import unet_structure
        from qbench.zoo.networks import load_tiny_ddim

        unet = load_tiny_ddim()
        return LoadedWorkload(unet, unet_structure(unet), PixelUnshuffle(2))

    def calibration_images(self) -> ImageSet:
        """Return the shipped training images."""
        from qbench.zoo.calibration_images import read_calibration_images

        return read_calibration_images(weights_path("fashion-calibration"))
