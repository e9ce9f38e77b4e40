"""What ``qbench.json`` says in an exported folder, and whether the folder is still what was written. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.errors import DataError
from qbench.identity import digest, file_digest
from qbench.records import Figure
from qbench.settings import Settings, validate
from qbench.workloads.json_file import read_json

FILE = "qbench.json"
CARD = "README.md"
PIPELINE = "model_index.json"
FORMAT = "qbench-export"
SCHEMA = 1
UNET, FIRST_STAGE, TEXT_ENCODER, TOKENIZER = PARTS = ("unet", "vae", "text_encoder", "tokenizer")
FILE_NAME = re.compile(rf"({'|'.join(PARTS)})/\w[\w.-]*\.(json|safetensors|txt)|{re.escape(PIPELINE)}", re.ASCII)
"""Every file that is loaded: none lies outside the folder, and none is a pickle."""


class CellInfo(Settings):
    """Which cell it is."""

    suite: Annotated[str, Field(description="name of the suite")]
    workload: Annotated[str, Field(description="public id of the workload")]
    row: Annotated[str, Field(description="label of the workload")]
    method: Annotated[str, Field(description="public id of the method")]
    label: Annotated[str, Field(description="label of the method")]
    bits: Annotated[str, Field(description="of weights and activations")]
    boundary_bits: Annotated[int | None, Field(description="weight bits of the first and last layer, if others")]
    seed: Annotated[int, Field(ge=0, lt=2**64, description="of the cell's noise")]
    samples: Annotated[int, Field(ge=1, description="images that the figures are of")]
    digest: Annotated[str, Field(description="of all that decides the figures")]


class CodecInfo(Settings):
    """How latents become images."""

    kind: Annotated[Literal["identity", "pixel-unshuffle", "first-stage"], Field(description="the codec")]
    factor: Annotated[int, Field(ge=1, description="side of the blocks of pixels that became channels")] = 1


class ExportInfo(Settings):
    """The content of ``qbench.json``."""

    format: Annotated[Literal["qbench-export"], Field(description="tells it from other files of this name")] = (
        "qbench-export"
    )
    schema_version: Annotated[Literal[1], Field(description="of this layout")] = 1
    cell: CellInfo
    sampler: Annotated[SamplerSettings, Field(description="with the scale of guidance")]
    schedule: ScheduleSettings
    latent_shape: Annotated[tuple[int, ...], Field(min_length=1, description="without the batch axis")]
    image_shape: Annotated[tuple[int, int, int], Field(description="channels, height, width")]
    codec: CodecInfo
    heads: Annotated[dict[str, int], Field(description="of attentions for which unet/config.json says it wrongly")]
    captions_at_once: Annotated[int | None, Field(ge=1, description="that the text encoder reads; none for all")]
    figures: Annotated[dict[str, Figure], Field(description="what was measured of the cell")]
    environment: Annotated[dict[str, Any], Field(description="versions and hardware of the cell's images")]
    versions: Annotated[dict[str, str], Field(description="that the folder was written with")]
    files: Annotated[dict[str, str], Field(description="SHA-256 of every file that is loaded")]

    @field_validator("latent_shape", "image_shape")
    @classmethod
    def _positive(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if min(shape) < 1:
            raise ValueError(f"{list(shape)} is no shape")
        return shape

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if not FILE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no file of an exported folder")
        return files


def write_info(info: ExportInfo) -> dict[str, Any]:
    """Return what to write into ``qbench.json``, with the digest of it all."""
    content = info.model_dump(mode="json")
    return {**content, "checksum": digest(content)}


def read_info(folder: Path) -> ExportInfo:
    """Read ``qbench.json`` and compare every file with it.

    The card may be edited, and whatever else lies beside the parts is not looked at.

    Raises:
        DataError: the folder is no exported one or of another version, or something in it is missing, damaged, altered
            or added.
    """
    path = folder / FILE
    if not path.is_file():
        what = "does not exist" if not folder.exists() else f"is no folder of `qbench export`: it holds no {FILE}"
        raise DataError(f"{folder} {what}")
    content = _unaltered(path, read_json(path))
    info = validate(ExportInfo, content, lambda location: f"{path} ({'.'.join(map(str, location))})", DataError)
    _check_files(folder, info.files)
    return info


def _unaltered(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    if content.get("format") != FORMAT:
        raise DataError(f"{path} was not written by `qbench export`")
    if content.get("schema_version") != SCHEMA:
        raise DataError(
            f"{path} is of version {content.get('schema_version')!r}, and this qbench reads {SCHEMA}: take the qbench "
            "that wrote it, or export the cell again"
        )
    said = {key: value for key, value in content.items() if key != "checksum"}
    try:
        vouched = digest(said) == content.get("checksum")
    except (TypeError, ValueError, RecursionError):  # NaN, say, which nothing vouches for
        vouched = False
    if not vouched:
        raise DataError(f"{path} is damaged or was altered: export the cell again")
    return said


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise DataError(f"{folder} lacks {name}: copy the whole folder, or export the cell again")
        if file_digest(folder / name) != expected:
            raise DataError(f"{folder / name} is damaged or was altered: export the cell again")
    # What lies beside the files of a part may be loaded with it.
    there = [each for part in PARTS if (folder / part).is_dir() for each in sorted((folder / part).iterdir())]
    for each in there:
        if not each.name.startswith(".") and each.relative_to(folder).as_posix() not in files:
            raise DataError(f"{each} was added to what `qbench export` wrote: take it away")
