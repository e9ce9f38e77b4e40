"""What the parameters of diffusers' networks are called in the original checkpoints of CompVis.

Sources: ``ldm/modules/diffusionmodules/openaimodel.py`` (UNetModel), ``ldm/modules/diffusionmodules/model.py``
(Encoder, Decoder), ``ldm/modules/attention.py`` of CompVis/latent-diffusion and CompVis/stable-diffusion.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where a parameter comes from.

    Attributes:
        name: of the original tensor.
        third: 0, 1 or 2 where it is the queries', keys' or values' part of a tensor that fuses the three; None where
            it is the whole tensor.
    """

    name: str
    third: int | None = None


UNET_PREFIX = "model.diffusion_model."
FIRST_STAGE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_THIRDS = {"to_q": 0, "to_k": 1, "to_v": 2}
_SINGLE_HEAD_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def unet_origins(names: Iterable[str], layers_per_block: int) -> dict[str, Origin]:
    """Map each parameter of UNet2DModel or UNet2DConditionModel to its origin in UNetModel.

    Args:
        names: of the parameters, such as ``down_blocks.0.resnets.1.conv1.weight``.
        layers_per_block: residual blocks per level on the way down.
    """
    names = list(names)
    attending = {match[1] for name in names if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return {name: _unet_origin(name, layers_per_block, attending) for name in names}


def first_stage_origins(names: Iterable[str]) -> dict[str, Origin]:
    """Map each parameter of VQModel or AutoencoderKL to its origin.

    Args:
        names: of the parameters, such as ``encoder.down_blocks.0.resnets.1.conv1.weight``.
    """
    names = list(names)
    levels = 1 + max(int(match[1]) for name in names if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", name)))
    return {name: Origin(FIRST_STAGE_PREFIX + _first_stage_name(name, levels)) for name in names}


def text_origins(names: Iterable[str]) -> dict[str, Origin]:
    """Map each parameter of CLIPTextModel to its origin, which is a CLIPTextModel as well.

    Args:
        names: of the parameters; whether they begin with ``text_model.`` depends on the version of transformers.
    """
    return {name: Origin(f"{TEXT_PREFIX}text_model.{name.removeprefix('text_model.')}") for name in names}


def _unet_origin(name: str, layers: int, attending: set[str]) -> Origin:
    if match := _BLOCK.match(name):
        way, block, group, index, rest = match.groups()
        # Each level is a run of numbered blocks: first conv_in, then per residual block one; a block of its own for
        # downsampling, whereas upsampling is part of the level's last block.
        place = int(block) * (layers + 1) + (layers if "samplers" in group else int(index))
        if way == "down":
            part = 1 if group == "attentions" else 0
            return _part_origin(f"input_blocks.{place + 1}.{part}", group, rest)
        part = {"resnets": 0, "attentions": 1, "upsamplers": 2 if block in attending else 1}[group]
        return _part_origin(f"output_blocks.{place}.{part}", group, rest)
    if match := _MID.match(name):
        group, index, rest = match.groups()
        return _part_origin(f"middle_block.{1 if group == 'attentions' else 2 * int(index)}", group, rest)
    return Origin(UNET_PREFIX + _renamed(name, _UNET_ENDS))


def _part_origin(place: str, group: str, rest: str) -> Origin:
    prefix = f"{UNET_PREFIX}{place}."
    if group == "attentions":
        layer, _, kind = rest.rpartition(".")
        if layer in _THIRDS:
            return Origin(f"{prefix}qkv.{kind}", _THIRDS[layer])
        return Origin(prefix + _renamed(rest, {"group_norm": "norm", "to_out.0": "proj_out"}))
    if group == "downsamplers" and rest.startswith("conv."):
        return Origin(f"{prefix}op.{rest.removeprefix('conv.')}")
    return Origin(prefix + _renamed(rest, _RESNET))


def _first_stage_name(name: str, levels: int) -> str:
    if match := re.match(r"(encoder|decoder)\.(.+)", name):
        side, rest = match.groups()
        if block := _BLOCK.match(rest):
            way, level, group, index, tail = block.groups()
            # Its decoder counts levels by resolution, from the finest on.
            level = str(levels - 1 - int(level)) if way == "up" else level
            if group == "resnets":
                return f"{side}.{way}.{level}.block.{index}.{_renamed(tail, {'conv_shortcut': 'nin_shortcut'})}"
            return f"{side}.{way}.{level}.{way}sample.{tail}"
        if middle := _MID.match(rest):
            group, index, tail = middle.groups()
            if group == "attentions":
                return f"{side}.mid.attn_1.{_renamed(tail, _SINGLE_HEAD_ATTENTION)}"
            return f"{side}.mid.block_{int(index) + 1}.{tail}"
        return f"{side}.{_renamed(rest, {'conv_norm_out': 'norm_out'})}"
    return name


def _renamed(name: str, table: Mapping[str, str]) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{table.get(layer, layer)}.{kind}"
