"""What all workloads have in common whose model is a folder of diffusers, or an original checkpoint turned into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from qbench.errors import DataError
from qbench.settings import Settings
from qbench.workload import ImageSet, LoadedWorkload, ReferenceSet, Skeleton, Workload
from qbench.workloads.assets import Asset, ByHand
from qbench.workloads.configurations import CONVERSION_REVISION, Family
from qbench.workloads.model_place import absolute, model_asset
from qbench.workloads.pipeline_folder import PipelineFolder, inspect_folder
from qbench.workloads.reference_settings import ReferenceSettings

if TYPE_CHECKING:
    from qbench.workloads.caption_file import CaptionList

CHECKPOINT = "checkpoint"
"""What an original checkpoint is called among the digests of weights, whatever its own name is."""
GIVEN = "real images that the suite names"
"""What real images are called that are not a workload's own."""


class PipelineSettings(Settings):
    """What every such workload lets a suite choose; paths start at the suite's folder."""

    model: Annotated[
        str,
        Field(
            description="a folder of diffusers, an id on Hugging Face's hub (owner/name, or owner/name@revision), or, "
            "where the workload knows the network, an original checkpoint; empty: the published one",
            examples=["./my-ddpm"],
        ),
    ] = ""
    reference: Annotated[
        ReferenceSettings,
        Field(
            description="the real images; by default those of the paper, where there are some",
            examples=[{"images": "./train"}],
        ),
    ] = ReferenceSettings()
    captions: Annotated[
        str | None,
        Field(
            description="file of captions to sample, a line each (.txt) or a column 'caption' (.tsv, .csv)",
            examples=["./captions.txt"],
        ),
    ] = None
    calibration_captions: Annotated[
        str | None, Field(description="file of captions to calibrate on, likewise", examples=["./other-captions.txt"])
    ] = None


class PipelineWorkload(Workload):
    """A denoiser, with first stage and text encoder if it has them, from a folder of diffusers.

    Attributes:
        family: the network of original checkpoints that it reads; None if it reads none.
        published: the model that an empty ``model`` stands for; None if there is none.
        reference_asset: the real images that no ``reference`` stands for; None if there are none.
        real_images: what the real images are.
    """

    settings_class = PipelineSettings
    family: Family | None = None
    published: Asset | None = None
    reference_asset: Asset | None = None
    real_images: str = "real images"
    settings: PipelineSettings

    @classmethod
    def located(cls, settings: Mapping[str, Any], base: Path) -> dict[str, Any]:
        """Return settings whose paths are absolute.

        Args:
            settings: as a suite has them.
            base: the suite's folder.
        """
        return absolute(settings, base)

    def describe(self) -> dict[str, Any]:
        """Return what identifies its images: places are no part of it, but what lies there.

        The real images that they are compared with decide nothing about them.
        """
        description = super().describe()
        settings = description["settings"]
        for key in ("model", "reference"):
            settings.pop(key)
        return {**description, "settings": settings | self._given_captions}

    @cached_property
    def _given_captions(self) -> dict[str, str | None]:
        """The digests of captions in files that the settings name."""
        lists = {"captions": self.evaluation_captions, "calibration_captions": self.captions_to_calibrate}
        return {
            key: None if found is None or getattr(self.settings, key) is None else found.digest
            for key, found in lists.items()
        }

    @cached_property
    def model_asset(self) -> Asset:
        """The model, be it at hand or not.

        Raises:
            DataError: none is named.
        """
        model = self.settings.model
        if not model:
            if self.published is None:
                raise DataError(f"the workload {self.name!r} needs a model: say which, as in 'model: ./my-pipeline'")
            return self.published
        return model_asset(model, self.name)

    def assets(self) -> Sequence[Asset]:
        """Return its model and its real images."""
        return (self.model_asset, *self._reference_assets())

    def _reference_assets(self) -> Sequence[Asset]:
        place = self.settings.reference.place
        if place is not None:
            what = f"the real images of {self.name!r}"
            return (Asset(what, ByHand(place[1], f"'{place[0]}' of its reference names it")),)
        return () if self.reference_asset is None else (self.reference_asset,)

    @cached_property
    def _place(self) -> Path:
        return self.model_asset.require()

    @property
    def needs_conversion(self) -> bool:  # type: ignore[override]
        """Whether the model is an original checkpoint."""
        return self._place.is_file()

    @property
    def conversion_revision(self) -> int:  # type: ignore[override]
        """Of the conversion of original checkpoints."""
        return CONVERSION_REVISION

    @cached_property
    def folder(self) -> PipelineFolder:
        """What the model's folder says of it; an original checkpoint has none.

        Raises:
            DataError: it is missing, or no folder that can be loaded.
        """
        if self._place.is_file():
            _ = self._known_family
        found = inspect_folder(self._place)
        self.check_folder(found)
        return found

    def check_folder(self, folder: PipelineFolder) -> None:
        """Refuse a folder that holds another kind of model than the workload's.

        Raises:
            DataError: it does.
        """

    @property
    def has_captions(self) -> bool:  # type: ignore[override]
        """Whether the model has a text encoder.

        Raises:
            DataError: it has none, and captions are given.
        """
        part = self._known_family.text_encoder if self.needs_conversion else self.folder.text_encoder
        for key in ("captions", "calibration_captions"):
            if part is None and getattr(self.settings, key) is not None:
                raise DataError(f"the model of {self.name!r} has no text encoder, which {key!r} is for: leave it out")
        return part is not None

    @property
    def latent_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of what the denoiser works on."""
        return self._shapes[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """(channels, height, width) of the images."""
        return self._shapes[1]

    @cached_property
    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, int, int]]:
        if self.needs_conversion:
            return self._known_family.shapes
        return self.folder.latent_shape, self.folder.image_shape

    @property
    def _known_family(self) -> Family:
        if self.family is None:
            raise DataError(
                f"{self._place} is a file: give the folder of a diffusers pipeline (original checkpoints are read by "
                "the workloads ldm-lsun-bedroom, ldm-lsun-church and sd-v1-4)"
            )
        return self.family

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        from qbench.workloads.file_digests import remembered_digest

        if self.needs_conversion:
            _ = self._known_family
            return {CHECKPOINT: remembered_digest(self._place)}
        return self.folder.digests()

    def weights(self) -> Mapping[str, str]:
        """Return the digests of the files that decide what the model computes."""
        return self._digests

    def convert(self, folder: Path) -> None:
        """Write an original checkpoint as a folder of diffusers."""
        from qbench.workloads.conversion import convert

        convert(self._place, self._known_family, folder)

    def load(self) -> LoadedWorkload:
        """Load the model's folder."""
        return self.load_converted(self._place)

    def load_converted(self, folder: Path) -> LoadedWorkload:
        """Load a folder of diffusers."""
        from qbench.diffusion.unet_structure import unet_structure
        from qbench.workloads.loading import load_pipeline_folder

        loaded = load_pipeline_folder(folder)
        return LoadedWorkload(loaded.denoiser, unet_structure(loaded.denoiser), loaded.codec, loaded.conditioning)

    def skeleton(self) -> Skeleton:
        """Build the denoiser from its configuration alone."""
        from qbench.workloads.skeletons import skeleton_of_family, skeleton_of_folder

        return skeleton_of_family(self._known_family) if self.needs_conversion else skeleton_of_folder(self.folder)

    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ReferenceSet | ImageSet:
        """Return the real images, or statistics of them."""
        from qbench.workloads.reference_sets import reference_statistics

        if self.reference_settings.statistics is not None:
            return reference_statistics(self.reference_settings, self._reference_name, extractor, extractor_weights)
        return self._reference_images

    @cached_property
    def _reference_images(self) -> ImageSet:
        from qbench.workloads.reference_sets import reference_images

        return reference_images(self.reference_settings, self.image_shape, self._reference_name, self.reference_files)

    @property
    def _reference_name(self) -> str:
        return self.real_images if self.settings.reference.place is None else GIVEN

    @property
    def reference_settings(self) -> ReferenceSettings:
        """Where the real images are."""
        return self.settings.reference

    @property
    def reference_files(self) -> Sequence[str] | None:
        """The files of the reference's folder that count; None for all."""
        return None

    def captions(self, indices: range) -> Sequence[str]:
        """Return the captions of some samples.

        Raises:
            DataError: there are none, too few, or some that the model would not read.
        """
        return self._readable(self.evaluation_captions, "captions").at(indices)

    def calibration_captions(self, indices: range) -> Sequence[str]:
        """Return the captions of some calibration samples; behind the last one the first comes again.

        Raises:
            DataError: there are none.
        """
        return self._readable(self.captions_to_calibrate, "calibration_captions").at(indices, again=True)

    def _readable(self, found: CaptionList | None, key: str) -> CaptionList:
        if not self.has_captions:
            raise DataError(f"the model of {self.name!r} has no text encoder, so it samples without captions")
        if found is None:
            raise DataError(
                f"the model of {self.name!r} is conditioned on captions, and none are given: name a file of them as "
                f"{key!r} in the workload's settings"
            )
        return found

    @cached_property
    def evaluation_captions(self) -> CaptionList | None:
        """The captions that are sampled; None where there are none."""
        return captions_in(self.settings.captions)

    @cached_property
    def captions_to_calibrate(self) -> CaptionList | None:
        """The captions that methods are calibrated on; None where there are none."""
        return captions_in(self.settings.calibration_captions)


def captions_in(path: str | None) -> CaptionList | None:
    """Return the captions in a file; None where none is named."""
    from qbench.workloads.caption_file import read_captions

    return None if path is None else read_captions(Path(path))
