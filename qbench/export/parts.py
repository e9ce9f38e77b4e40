"""The networks of an exported folder: written as diffusers has them, and loaded again around the packed weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.models.attention_processor import Attention
from torch import nn

from qbench.bits import FULL_PRECISION
from qbench.diffusion.codecs import Codec, DiffusersFirstStage, Identity, PixelUnshuffle
from qbench.diffusion.correction_file import load_correction
from qbench.diffusion.unet_structure import unet_structure
from qbench.errors import DataError, ExportError, QbenchError
from qbench.export.schema import FIRST_STAGE, TEXT_ENCODER, TOKENIZER, UNET, CodecInfo, ExportInfo
from qbench.quant.model import QuantModel
from qbench.quant.packing import load_input_grids, load_weights
from qbench.stages.denoiser import CORRECTION, INPUT_GRIDS, WEIGHTS, Denoiser
from qbench.workloads.loading import load_conditioning, load_network, set_heads
from qbench.workloads.pipeline_folder import DENOISERS, FIRST_STAGES, TEXT_ENCODERS, Part, read_part
from qbench.workloads.skeletons import network_without_weights
from qbench.workloads.text_conditioning import CLIPConditioning


@dataclass(frozen=True)
class Described:
    """What of a model no configuration of diffusers expresses.

    Attributes:
        codec: between images and latents.
        heads: of attentions, where the configuration leads to another number.
        captions_at_once: how many the text encoder reads at a time.
    """

    codec: CodecInfo
    heads: Mapping[str, int]
    captions_at_once: int | None


def write_parts(denoiser: Denoiser, name: str, folder: Path) -> Described:
    """Write everything but the denoiser's weights and grids.

    Args:
        denoiser: the cell's.
        name: of its workload, for messages.
        folder: to write into.

    Raises:
        ExportError: a part is of a class that no folder of diffusers holds.
    """
    unet: Any = denoiser.model.module
    _check_class(unet, name, "denoiser", UNet2DModel, UNet2DConditionModel)
    codec = _described(denoiser.codec, name)
    conditioning = denoiser.conditioning
    if (conditioning is not None) != isinstance(unet, UNet2DConditionModel):
        text = "with" if conditioning is not None else "without"
        raise ExportError(
            f"the workload {name!r} has a {type(unet).__name__} {text} captions, which cannot be exported"
        )
    unet.save_config(folder / UNET)
    if isinstance(denoiser.codec, DiffusersFirstStage):
        denoiser.codec.model.save_pretrained(folder / FIRST_STAGE, safe_serialization=True)
    if conditioning is not None:
        _write_text(conditioning, name, folder)
    for part in (UNET, FIRST_STAGE, TEXT_ENCODER):
        if (folder / part).is_dir():
            _forget_origin(folder / part / "config.json")
    at_once = conditioning.at_once if isinstance(conditioning, CLIPConditioning) else None
    return Described(codec, _heads_beyond_config(unet), at_once)


def load_parts(folder: Path, info: ExportInfo) -> Denoiser:
    """Load a folder whose files were checked, on the CPU, frozen for sampling.

    Raises:
        DataError: a part does not fit the others or this version.
    """
    part = read_part(folder / UNET, DENOISERS)
    unet = _with_zeros(part, (folder / UNET / WEIGHTS).stat().st_size)
    set_heads(unet, info.heads)
    try:
        structure = unet_structure(unet)
    except QbenchError as error:
        raise DataError(f"{part.folder / 'config.json'}: {error}") from error
    model = QuantModel(unet.requires_grad_(False), structure, FULL_PRECISION)
    load_weights(model, folder / UNET / WEIGHTS)
    if (folder / UNET / INPUT_GRIDS).is_file():
        load_input_grids(model, folder / UNET / INPUT_GRIDS)
    model.freeze()
    conditioning = None
    if (folder / TEXT_ENCODER).is_dir():
        conditioning = load_conditioning(read_part(folder / TEXT_ENCODER, TEXT_ENCODERS), folder / TOKENIZER)
        conditioning.at_once = info.captions_at_once
    codec = _codec(info.codec, folder)
    path = folder / UNET / CORRECTION
    correction = load_correction(path) if path.is_file() else None
    scale = info.sampler.guidance_scale
    return Denoiser(model, codec, torch.device("cpu"), conditioning, scale, correction=correction)


def _check_class(part: Any, name: str, what: str, *known: type) -> None:
    if type(part) not in known:
        raise ExportError(
            f"the {what} of the workload {name!r} is a {type(part).__name__}, a class of its own, which no folder of "
            f"diffusers holds: only {' and '.join(each.__name__ for each in known)} can be exported"
        )


def _described(codec: Codec, name: str) -> CodecInfo:
    _check_class(codec, name, "codec", Identity, PixelUnshuffle, DiffusersFirstStage)
    if isinstance(codec, PixelUnshuffle):
        return CodecInfo(kind="pixel-unshuffle", factor=codec.factor)
    if isinstance(codec, DiffusersFirstStage):
        _check_class(codec.model, name, "first stage", AutoencoderKL, VQModel)
        return CodecInfo(kind="first-stage")
    return CodecInfo(kind="identity")


def _write_text(conditioning: Any, name: str, folder: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    _check_class(conditioning, name, "conditioning", CLIPConditioning)
    _check_class(conditioning.model, name, "text encoder", CLIPTextModel)
    _check_class(conditioning.tokenizer, name, "tokenizer", CLIPTokenizer)
    conditioning.model.save_pretrained(folder / TEXT_ENCODER, safe_serialization=True)
    conditioning.tokenizer.save_pretrained(folder / TOKENIZER)


def _forget_origin(path: Path) -> None:
    """Leave out of a configuration where its model was loaded from, which is nobody else's business."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _heads_beyond_config(unet: Any) -> dict[str, int]:
    plain = dict(network_without_weights(type(unet).__name__, unet.config).named_modules())
    return {
        name: module.heads
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and module.heads != plain[name].heads
    }


def _with_zeros(part: Part, packed_bytes: int) -> nn.Module:
    """Build a denoiser whose weights are still to come; drawing them would take longer than loading them.

    What its file of weights could never fill is not given any memory: a byte holds eight values at most.
    """
    place = part.folder / "config.json"
    try:
        described: nn.Module = network_without_weights(part.class_name, part.config)
        values = sum(each.numel() for each in (*described.parameters(), *described.buffers()))
        unet = described.to_empty(device="cpu").eval() if values <= 8 * packed_bytes else None
    except Exception as error:  # diffusers raises whatever its arithmetic does
        raise DataError(f"{place} describes no {part.class_name} that can be built") from error
    if unet is None:
        raise DataError(f"{place} describes a {part.class_name} of {values:,} values, which its weights do not fill")
    with torch.no_grad():
        for tensor in (*unet.parameters(), *unet.buffers()):
            tensor.zero_()
    return unet


def _codec(info: CodecInfo, folder: Path) -> Codec:
    if info.kind == "first-stage":
        return DiffusersFirstStage(load_network(read_part(folder / FIRST_STAGE, FIRST_STAGES)))
    return PixelUnshuffle(info.factor) if info.kind == "pixel-unshuffle" else Identity()
