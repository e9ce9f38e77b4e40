"""Where the real images are that samples are compared with, as plain data: read without torch and without Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_serializer, model_validator

from qbench.settings import Settings

PLACES = ("images", "lmdb", "cifar10", "statistics")
"""The keys that say where; one at most is given."""


class PreprocessingSettings(Settings):
    """What is done to each real image, once, in 8 bits, in this order: to RGB or grey, crop, resize.

    Resizing is Pillow's, whose filters widen with the factor (they antialias) and whose bicubic kernel has a = -0.5:
    first along rows, then along columns, each rounded to the nearest of 0..255. Nothing is mirrored or turned.
    """

    crop: Annotated[
        Literal["none", "center"],
        Field(
            description="center: the largest square in the middle (a row too many falls below, a column right)",
            examples=["center"],
        ),
    ] = "none"
    size: Annotated[
        int | None,
        Field(
            ge=1,
            le=8192,
            description="side of the square that the image is resized to; None: it is not resized",
            examples=[256],
        ),
    ] = None
    filter: Annotated[
        Literal["lanczos", "bicubic", "bilinear", "box"],
        Field(description="filter of the resizing", examples=["lanczos"]),
    ] = "bicubic"


UNTOUCHED = PreprocessingSettings()
"""CIFAR-10, and images that somebody prepared before."""
LSUN = PreprocessingSettings(crop="center", size=256)
"""CompVis latent-diffusion, ldm/data/lsun.py: the middle square, bicubic to 256x256; no mirroring for evaluation."""
COCO = PreprocessingSettings(crop="center", size=512)
"""For Stable Diffusion: the middle square, bicubic to 512x512.

There is no one convention. MLPerf's training benchmark squeezes whole images to 512x512 (``crop: none``); how the
statistics ``val2014.npz`` of its inference benchmark were made is not published: give the file as ``statistics``.
"""


class ReferenceSettings(Settings):
    """Real images, from one of four places, or statistics of them.

    Paths never enter a digest: what lies there does.
    """

    images: Annotated[
        str | None, Field(description="folder of image files, in natural order of their names", examples=["./train"])
    ] = None
    lmdb: Annotated[
        str | None,
        Field(
            description="folder of an LMDB as LSUN publishes them: encoded images, in the order of their keys",
            examples=["./church_outdoor_train_lmdb"],
        ),
    ] = None
    cifar10: Annotated[
        str | None,
        Field(
            description="folder of CIFAR-10's binary version: data_batch_1.bin to data_batch_5.bin",
            examples=["./cifar-10-batches-bin"],
        ),
    ] = None
    statistics: Annotated[
        str | None,
        Field(
            description="statistics in place of images: an .npz with mu and sigma, and mu_s and sigma_s for sFID, or a "
            ".safetensors file that qbench wrote",
            examples=["./statistics.npz"],
        ),
    ] = None
    statistics_of: Annotated[
        str,
        Field(
            description="the extractor whose features the statistics are of: an .npz does not say",
            examples=["inception"],
        ),
    ] = "inception"
    statistics_samples: Annotated[
        int,
        Field(
            ge=0, description="how many images the statistics are of, for the record; 0: nobody knows", examples=[50000]
        ),
    ] = 0
    limit: Annotated[
        int | None, Field(ge=1, description="only so many of the first images; None: all", examples=[10000])
    ] = None
    preprocessing: Annotated[
        PreprocessingSettings,
        Field(
            description="what is done to each image; nothing to statistics", examples=[{"crop": "center", "size": 256}]
        ),
    ] = UNTOUCHED

    @model_validator(mode="after")
    def _one_place(self) -> ReferenceSettings:
        given = [key for key in PLACES if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given: say in one way only what the real images are")
        return self

    @property
    def place(self) -> tuple[str, Path] | None:
        """The key that is given, and its path; None if none is."""
        for key in PLACES:
            value = getattr(self, key)
            if value is not None:
                return key, Path(value).expanduser()
        return None

    @field_serializer(*PLACES, when_used="json")
    def _without_path(self, value: str | None) -> str | None:
        """Keep paths out of descriptions: the digest of what lies there is in them."""
        return None if value is None else "given"


def resolved(settings: ReferenceSettings, base: Path) -> ReferenceSettings:
    """Return settings whose path is absolute.

    Args:
        settings: as a suite has them.
        base: the folder that a relative path starts from, such as that of the suite file.
    """
    if settings.place is None:
        return settings
    key, path = settings.place
    return settings.model_copy(update={key: str(base.absolute() / path)})
