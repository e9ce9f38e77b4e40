"""What all workloads have in common whose model is a folder of diffusers, or an original checkpoint turned into one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_serializer

from qbench.errors import DataError
from qbench.settings import Settings
from qbench.workload import ImageSet, LoadedWorkload, ReferenceSet, Workload
from qbench.workloads.assets import Asset, ByHand, HubFolder
from qbench.workloads.reference_settings import PLACES, ReferenceSettings

if TYPE_CHECKING:
    from qbench.workloads.caption_file import CaptionList
    from qbench.workloads.configurations import Family
    from qbench.workloads.pipeline_folder import PipelineFolder

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
"""``owner/name``, with a commit, branch or tag behind an @."""
CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors")
"""How the names of original checkpoints end."""
PIPELINE_FILES = (
    "config.json|",
    "model_index.json|",
    "scheduler_config.json|",
    "scheduler/scheduler_config.json|",
    "diffusion_pytorch_model.safetensors|diffusion_pytorch_model.bin|",
    "unet/config.json|",
    "unet/diffusion_pytorch_model.safetensors|unet/diffusion_pytorch_model.safetensors.index.json|"
    "unet/diffusion_pytorch_model.bin|",
    "vae/config.json|",
    "vae/diffusion_pytorch_model.safetensors|vae/diffusion_pytorch_model.bin|",
    "vqvae/config.json|",
    "vqvae/diffusion_pytorch_model.safetensors|vqvae/diffusion_pytorch_model.bin|",
    "text_encoder/config.json|",
    "text_encoder/model.safetensors|text_encoder/pytorch_model.bin|",
    "tokenizer/*|",
)
"""What is fetched of a repository that nobody described: the parts that a workload is loaded from."""


class PipelineSettings(Settings):
    """What every such workload lets a suite choose; paths start at the suite's folder."""

    model: Annotated[
        str,
        Field(
            description="a folder of diffusers, an id on Hugging Face's hub (owner/name, or owner/name@revision), or, "
            "where the workload knows the network, an original checkpoint; empty: the published one"
        ),
    ] = ""
    reference: Annotated[
        ReferenceSettings, Field(description="the real images; by default those of the paper, where there are some")
    ] = ReferenceSettings()
    captions: Annotated[
        str | None,
        Field(description="file of captions to sample, a line each (.txt) or a column 'caption' (.tsv, .csv)"),
    ] = None
    calibration_captions: Annotated[str | None, Field(description="file of captions to calibrate on, likewise")] = None

    @field_serializer("model", when_used="json")
    def _without_place(self, model: str) -> str:
        """Keep places out of descriptions: the digests of what lies there are in them."""
        return "given" if model else ""

    @field_serializer("captions", "calibration_captions", when_used="json")
    def _without_path(self, path: str | None) -> str | None:
        return None if path is None else "given"


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
        found = dict(settings)
        model = found.get("model")
        if isinstance(model, str) and model and not _is_hub_id(model, base):
            found["model"] = str(base.absolute() / Path(model).expanduser())
        for key in ("captions", "calibration_captions"):
            if isinstance(found.get(key), str):
                found[key] = str(base.absolute() / Path(found[key]).expanduser())
        reference = found.get("reference")
        if isinstance(reference, Mapping):
            found["reference"] = {
                key: str(base.absolute() / Path(value).expanduser())
                if key in PLACES and isinstance(value, str)
                else value
                for key, value in reference.items()
            }
        return found

    def describe(self) -> dict[str, Any]:
        """Return what identifies its images: the real ones that they are compared with are no part of it."""
        description = super().describe()
        description["settings"].pop("reference", None)
        return description

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
        if _is_hub_id(model, None):
            repository, _, revision = model.partition("@")
            return Asset(model, HubFolder(repository, revision or "main", PIPELINE_FILES))
        how = "give the folder of a diffusers pipeline, or an id on Hugging Face's hub such as owner/name"
        return Asset(f"the model of {self.name!r}", ByHand(Path(model), how))

    def assets(self) -> Sequence[Asset]:
        """Return its model and its real images."""
        return (self.model_asset, *self._reference_assets())

    def _reference_assets(self) -> Sequence[Asset]:
        place = self.settings.reference.place
        if place is not None:
            what = f"the {self.real_images} of {self.name!r}"
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
        from qbench.workloads.conversion import REVISION

        return REVISION

    @cached_property
    def folder(self) -> PipelineFolder:
        """What the model's folder says of it; an original checkpoint has none.

        Raises:
            DataError: it is missing, or no folder that can be loaded.
        """
        from qbench.workloads.pipeline_folder import inspect_folder

        return inspect_folder(self._place)

    @property
    def has_captions(self) -> bool:  # type: ignore[override]
        """Whether the model has a text encoder."""
        if self.needs_conversion:
            return self._known_family.text_encoder is not None
        return self.folder.text_encoder is not None

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
            return {self._place.name: remembered_digest(self._place)}
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

    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ReferenceSet | ImageSet:
        """Return the real images, or statistics of them."""
        from qbench.workloads.reference_sets import reference_statistics

        if self.reference_settings.statistics is not None:
            return reference_statistics(self.reference_settings, self.real_images, extractor, extractor_weights)
        return self._reference_images

    @cached_property
    def _reference_images(self) -> ImageSet:
        from qbench.workloads.reference_sets import reference_images

        return reference_images(self.reference_settings, self.image_shape, self.real_images, self.reference_files)

    @property
    def reference_settings(self) -> ReferenceSettings:
        """Where the real images are."""
        return self.settings.reference

    @property
    def reference_files(self) -> Sequence[str] | None:
        """The files of the reference's folder that count; None for all."""
        return None

    def captions(self, indices: range) -> Sequence[str]:
        """Return the captions of some samples."""
        found = self.evaluation_captions
        return super().captions(indices) if found is None else found.at(indices)

    def calibration_captions(self, indices: range) -> Sequence[str]:
        """Return the captions of some calibration samples; behind the last one the first comes again."""
        found = self.captions_to_calibrate
        return super().calibration_captions(indices) if found is None else found.at(indices, again=True)

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


def _is_hub_id(model: str, base: Path | None) -> bool:
    """Whether a model is meant to be on the hub: it looks like an id, and no such folder is here."""
    if not HUB_ID.fullmatch(model):
        return False
    return base is None or not (base / model).exists()
