"""What a folder of diffusers holds, read without torch: its parts, shapes, schedule and weight files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qbench.diffusion.sampler_settings import ScheduleSettings
from qbench.errors import DataError
from qbench.workloads.file_digests import remembered_digest
from qbench.workloads.json_file import read_json
from qbench.workloads.schedule_file import implied_sampler, read_schedule

BEYOND_CONFIG = "qbench.json"
"""A converted folder's file for what no configuration of diffusers can express."""

DENOISERS = ("UNet2DModel", "UNet2DConditionModel")
FIRST_STAGES = ("AutoencoderKL", "VQModel")
TEXT_ENCODERS = ("CLIPTextModel",)
OTHER_PARTS = ("text_encoder_2", "tokenizer_2", "transformer", "prior", "unet_2", "image_unet")
"""Parts of pipelines whose images other parts decide too, so that loading the known ones would not be the model."""

DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEMS = ("model", "pytorch_model")


@dataclass(frozen=True)
class Part:
    """A network of a pipeline.

    Attributes:
        folder: with ``config.json`` and the weights.
        class_name: of diffusers or transformers.
        config: its configuration.
    """

    folder: Path
    class_name: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class PipelineFolder:
    """A folder of diffusers whose parts make a workload.

    Attributes:
        path: of the folder.
        denoiser: the UNet.
        first_stage: the autoencoder; None where the denoiser works on pixels.
        text_encoder: the text model; None where nothing is conditioned on text.
        latent_shape: shape of what the denoiser works on, without the batch axis.
        image_shape: (channels, height, width) of the images.
        scheduler: the file ``scheduler_config.json``; None where there is none.
        heads: attention heads of every attention of the denoiser, which its configuration could not express; None
            where it is right.
    """

    path: Path
    denoiser: Part
    first_stage: Part | None
    text_encoder: Part | None
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    scheduler: Path | None
    heads: int | None

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's folder."""
        return self.path / "tokenizer"

    @property
    def schedule(self) -> ScheduleSettings | None:
        """The noise schedule; None where the folder says nothing of it.

        Raises:
            DataError: the samplers do not follow it.
        """
        return None if self.scheduler is None else read_schedule(self.scheduler)

    @property
    def sampler(self) -> dict[str, Any]:
        """The settings of the sampler that the folder stands for, the number of steps excepted.

        Raises:
            DataError: no sampler does what it says.
        """
        return {} if self.scheduler is None else implied_sampler(self.scheduler)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file that decides what the loaded parts compute, by its path in the folder.

        Raises:
            DataError: a weight file is missing.
        """
        files = []
        for part in (self.denoiser, self.first_stage, self.text_encoder):
            if part is not None:
                files += [part.folder / "config.json", *weight_files(part)]
        if self.text_encoder is not None:
            files += [each for each in sorted(self.tokenizer.iterdir()) if each.suffix in (".json", ".txt")]
        if (self.path / BEYOND_CONFIG).is_file():
            files.append(self.path / BEYOND_CONFIG)
        return {each.relative_to(self.path).as_posix(): remembered_digest(each) for each in files}


def inspect_folder(path: Path) -> PipelineFolder:
    """Find out what a pipeline folder, or the folder of a single UNet, holds; no weight is read.

    Args:
        path: with ``unet/``, ``vae/`` or ``vqvae/``, ``text_encoder/``, ``tokenizer/``, ``scheduler/``; or with a
            UNet's ``config.json`` in itself.

    Raises:
        DataError: a part is missing, unreadable, or of a class that is not known.
    """
    if not path.is_dir():
        raise DataError(f"the folder {path} does not exist")
    if others := [name for name in OTHER_PARTS if (path / name).is_dir()]:
        raise DataError(f"{path} holds a pipeline with the part {others[0]!r}, which no workload of qbench loads")
    denoiser = read_part(path / "unet" if (path / "unet").is_dir() else path, DENOISERS)
    stages = [path / name for name in ("vae", "vqvae") if (path / name).is_dir()]
    if len(stages) > 1:
        raise DataError(f"{path} holds both vae and vqvae; a pipeline has one first stage")
    first_stage = read_part(stages[0], FIRST_STAGES) if stages else None
    text_encoder = read_part(path / "text_encoder", TEXT_ENCODERS) if (path / "text_encoder").is_dir() else None
    if (denoiser.class_name == "UNet2DConditionModel") != (text_encoder is not None):
        missing = "no text_encoder that it needs" if text_encoder is None else "a text_encoder that it does not read"
        raise DataError(f"{path} has a {denoiser.class_name} and {missing}")
    if text_encoder is not None and not (path / "tokenizer").is_dir():
        raise DataError(f"{path} has a text_encoder but no tokenizer")
    latents = _latent_shape(denoiser)
    schedulers = [path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json"]
    beyond = read_json(path / BEYOND_CONFIG) if (path / BEYOND_CONFIG).is_file() else {}
    return PipelineFolder(
        path=path,
        denoiser=denoiser,
        first_stage=first_stage,
        text_encoder=text_encoder,
        latent_shape=latents,
        image_shape=latents if first_stage is None else _image_shape(first_stage, latents),
        scheduler=next((each for each in schedulers if each.is_file()), None),
        heads=beyond.get("heads"),
    )


def weight_files(part: Part) -> list[Path]:
    """Return the files that a part's weights are loaded from: one, or an index with its shards.

    Safetensors are preferred over pickles; variants such as half precision are passed over.

    Raises:
        DataError: there are none.
    """
    stems = TRANSFORMERS_STEMS if part.class_name in TEXT_ENCODERS else (DIFFUSERS_STEM,)
    for kind in ("safetensors", "bin"):
        for stem in stems:
            single, index = part.folder / f"{stem}.{kind}", part.folder / f"{stem}.{kind}.index.json"
            if single.is_file():
                return [single]
            if index.is_file():
                shards = sorted({part.folder / str(name) for name in read_json(index).get("weight_map", {}).values()})
                if absent := [shard.name for shard in shards if not shard.is_file()]:
                    raise DataError(f"{part.folder} lacks {absent[0]}, which its index of weights names")
                return [index, *shards]
    raise DataError(
        f"{part.folder} holds no weights: there is neither {stems[0]}.safetensors nor {stems[-1]}.bin in it "
        "(variants such as fp16 are not read)"
    )


def read_part(folder: Path, known: tuple[str, ...]) -> Part:
    """Read the configuration of a network.

    Args:
        folder: with its ``config.json``.
        known: the classes that it may be of.

    Raises:
        DataError: it is missing, unreadable, or of another class.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} is no folder of diffusers: it holds no config.json")
    config = read_json(folder / "config.json")
    named = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    if named not in known:
        raise DataError(
            f"{folder / 'config.json'} describes a {named or 'nameless class'}; known are {', '.join(known)}"
        )
    return Part(folder, str(named), config)


def _latent_shape(denoiser: Part) -> tuple[int, int, int]:
    place = denoiser.folder / "config.json"
    size = denoiser.config.get("sample_size")
    sides = [size, size] if isinstance(size, int) else size
    if not (isinstance(sides, list) and len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)):
        raise DataError(f"{place} has the sample_size {size!r}, which is no height and width")
    default = 3 if denoiser.class_name == "UNet2DModel" else 4
    inputs, outputs = (denoiser.config.get(f"{way}_channels", default) for way in ("in", "out"))
    if inputs != outputs:
        raise DataError(
            f"{place} describes a denoiser from {inputs} to {outputs} channels; only one that estimates as many "
            "channels as it reads can be sampled from"
        )
    return (inputs, sides[0], sides[1])


def _image_shape(first_stage: Part, latents: tuple[int, int, int]) -> tuple[int, int, int]:
    place = first_stage.folder / "config.json"
    default = 3 if first_stage.class_name == "VQModel" else 4
    channels = first_stage.config.get("latent_channels", default)
    if first_stage.class_name == "VQModel":
        channels = first_stage.config.get("vq_embed_dim") or channels
    if channels != latents[0]:
        raise DataError(f"{place} describes latents of {channels} channels, but the denoiser works on {latents[0]}")
    factor = 2 ** (len(first_stage.config.get("block_out_channels", (64,))) - 1)
    return (first_stage.config.get("out_channels", 3), factor * latents[1], factor * latents[2])
