"""The contract of a workload: a trained model, how it is sampled, and what its images are compared with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.errors import DataError
from qbench.plugin import Plugin
from qbench.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from qbench.diffusion.codecs import Codec
    from qbench.diffusion.conditioning import Conditioning
    from qbench.diffusion.structures import Structure
    from qbench.workloads.assets import Asset

__all__ = [
    "ImageSet",
    "LoadedWorkload",
    "ReferenceSet",
    "SamplerSettings",
    "ScheduleSettings",
    "Skeleton",
    "Workload",
    "WorkloadSettings",
]


class WorkloadSettings(Settings):
    """What every workload lets a suite choose."""

    sampler: Annotated[SamplerSettings, Field(description="how images are sampled")] = SamplerSettings()


@dataclass(frozen=True)
class LoadedWorkload:
    """A workload in memory, in evaluation mode, on the CPU.

    Attributes:
        module: the denoiser, float32.
        structure: its layout.
        codec: between images and latents.
        conditioning: from captions to what the denoiser is conditioned on; None where it samples without captions.
    """

    module: nn.Module
    structure: Structure
    codec: Codec
    conditioning: Conditioning | None = None


@dataclass(frozen=True)
class Skeleton:
    """A denoiser without weights.

    Attributes:
        module: the denoiser, on the meta device.
        structure: its layout.
        context: the shape of each tensor that it is conditioned on, without the batch axis; empty without captions.
    """

    module: nn.Module
    structure: Structure
    context: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReferenceSet:
    """The real images that samples are compared with, as an extractor's statistics.

    Attributes:
        name: what the images are.
        samples: how many.
        digest: SHA-256 of the file that holds the statistics.
        path: a safetensors file with ``<feature>.mean`` [D] and ``<feature>.cov`` [D, D], float64.
    """

    name: str
    samples: int
    digest: str
    path: str


@dataclass(frozen=True)
class ImageSet:
    """Real images: what methods may be calibrated on, or what samples are compared with.

    Attributes:
        name: what the images are.
        count: how many.
        digest: SHA-256 of whatever holds them.
        read: from indices below ``count`` to uint8 images [len(indices), *image_shape].
    """

    name: str
    count: int
    digest: str
    read: Callable[[Sequence[int]], NDArray[np.uint8]]


class Workload(Plugin):
    """A trained diffusion model with its sampler and reference.

    Attributes:
        latent_shape: shape of what the denoiser works on, without the batch axis.
        image_shape: (channels, height, width) of the images.
        schedule: the noise schedule it was trained with.
        needs_conversion: whether it is loaded from what ``convert`` writes.
        has_captions: whether its samples are conditioned on captions.
        conversion_revision: raised when ``convert`` writes something else from the same weights.
        standin: public id of the workload that ``--standin`` puts in its place; empty if there is none.
        standin_settings: of the stand-in, such as a sampler like the workload's own.
        standin_metrics: for a stand-in, the metric that it has in place of each metric of real workloads.
        settings: instance of ``settings_class``.
    """

    settings_class: ClassVar[type[Settings]] = WorkloadSettings
    latent_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]
    schedule: ScheduleSettings = ScheduleSettings()
    needs_conversion: bool = False
    has_captions: bool = False
    conversion_revision: int = 1
    standin: ClassVar[str] = ""
    standin_settings: ClassVar[Mapping[str, Any]] = {}
    standin_metrics: ClassVar[Mapping[str, str]] = {}
    settings: Settings

    @property
    def sampler(self) -> SamplerSettings:
        """How images are sampled: a field of the settings, unless a workload knows more."""
        found: SamplerSettings = getattr(self.settings, "sampler")  # noqa: B009 (whatever the class of the settings)
        return found

    @abstractmethod
    def weights(self) -> Mapping[str, str]:
        """Return the SHA-256 of each weight file by its name, without loading any."""

    @classmethod
    def located(cls, settings: Mapping[str, Any], base: Path) -> dict[str, Any]:
        """Return settings as they are, with paths that start at a folder made absolute.

        Args:
            settings: plain data, not yet checked.
            base: the folder, that of the suite file.
        """
        return dict(settings)

    def assets(self) -> Sequence[Asset]:
        """Return the published files that it needs, be they at hand or not."""
        return ()

    def convert(self, folder: Path) -> None:
        """Write weights of another layout as ``load_converted`` reads them; called once for given weights.

        Args:
            folder: an empty folder.

        Raises:
            DataError: a weight file is missing, damaged or of another model.
        """
        raise NotImplementedError(f"{self.name} needs no conversion")

    def load_converted(self, folder: Path) -> LoadedWorkload:
        """Load the model from what ``convert`` wrote; called in place of ``load`` where a conversion is needed.

        Raises:
            DataError: a file is missing or damaged.
        """
        raise NotImplementedError(f"{self.name} needs no conversion")

    @abstractmethod
    def load(self) -> LoadedWorkload:
        """Load the model.

        Raises:
            DataError: a weight file is missing or damaged.
        """

    def skeleton(self) -> Skeleton:
        """Return the denoiser without weights, for estimates; unless a workload knows better, from the loaded one."""
        loaded = self.load()
        context = {} if loaded.conditioning is None else loaded.conditioning([""])
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in context.items()}
        return Skeleton(loaded.module.to("meta"), loaded.structure, shapes)

    @abstractmethod
    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ReferenceSet | ImageSet:
        """Return the real images, or their statistics under an extractor, without reading any.

        Args:
            extractor: its public id.
            extractor_weights: SHA-256 of its weight files.

        Raises:
            DataError: there are none for this extractor and these weights.
        """

    def captions(self, indices: range) -> Sequence[str]:
        """Return the captions that some samples are conditioned on.

        Raises:
            DataError: it samples without captions.
        """
        raise DataError(
            f"the workload {self.name!r} samples without captions, so nothing can be said of how images fit them"
        )

    def calibration_captions(self, indices: range) -> Sequence[str]:
        """Return the captions that some calibration samples are conditioned on.

        Raises:
            DataError: it samples without captions.
        """
        raise DataError(f"the workload {self.name!r} samples without captions, so there are none to calibrate on")

    def calibration_images(self) -> ImageSet:
        """Return the real images that methods may be calibrated on, without reading any.

        Raises:
            DataError: it has none.
        """
        raise DataError(
            f"the workload {self.name!r} has no real images to calibrate on, "
            "so the calibration 'noised-images' cannot be made"
        )

    def describe(self) -> dict[str, Any]:
        """Return what identifies it: as for every plugin, with schedule and weight files."""
        return {
            **super().describe(),
            "schedule": self.schedule.model_dump(mode="json"),
            "weights": dict(self.weights()),
        }
