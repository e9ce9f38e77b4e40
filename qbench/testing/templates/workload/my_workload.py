"""my-workload: the exact denoiser of a few dozen drawn images. Put your own model in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from qbench.workload import ImageSet, LoadedWorkload, SamplerSettings, Workload, WorkloadSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, COUNT = 16, 36


class MyWorkloadSettings(WorkloadSettings):
    """Settings of my-workload. Each has a default and a description."""

    sampler: Annotated[SamplerSettings, Field(description="how images are sampled")] = SamplerSettings(steps=20)


class MyWorkload(Workload):
    """Say here what the model is: `qbench workloads show` prints this."""

    settings_class = MyWorkloadSettings
    title = "the exact denoiser of 36 drawn images"
    revision = 1  # raise it when its images change: what was cached of it is then computed again
    latent_shape = (4, SIDE // 2, SIDE // 2)
    image_shape = (1, SIDE, SIDE)
    settings: MyWorkloadSettings

    def weights(self) -> Mapping[str, str]:
        """Return what identifies the weights: the digest of each file, here of the images they are made of."""
        return {"images": sha256(images().tobytes()).hexdigest()}

    def load(self) -> LoadedWorkload:
        """Return the denoiser in evaluation mode, its structure, and the way from images to latents and back."""
        from qbench.diffusion.codecs import PixelUnshuffle
        from qbench.diffusion.noise_schedule import signal_levels
        from qbench.diffusion.structures import Structure

        from my_workload_network import Denoiser

        codec, structure = PixelUnshuffle(2), Structure(boundary_layers=("conv_in", "conv_out"))
        return LoadedWorkload(Denoiser(images(), codec, signal_levels(self.schedule)), structure, codec)

    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ImageSet:
        """Return the real images that samples are compared with."""

        def read(indices: Sequence[int]) -> NDArray[np.uint8]:
            return images()[list(indices)]

        return ImageSet("drawn discs", COUNT, sha256(images().tobytes()).hexdigest(), read)


def images() -> NDArray[np.uint8]:
    """Draw the images [COUNT, 1, SIDE, SIDE]: soft discs in different places and sizes."""
    index = np.arange(COUNT)[:, None, None]
    x, y, radius = 5 + 3 * (index % 3), 5 + 3 * (index // 3 % 3), 2 + index // 9
    row, column = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(row - y, column - x)
    drawn: NDArray[np.uint8] = (255 / (1 + np.exp(2 * (distance - radius)))).round().astype(np.uint8)[:, None]
    return drawn
