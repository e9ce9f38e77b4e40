"""The names at full width; that the tensors behind them are the right ones is shown by test_conversion.py."""

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import pytest
import torch
from compvis_first_stage import AutoencoderKL, VQModel
from compvis_unet import UNetModel
from torch import nn

from qbench.workloads.compvis_names import (
    FIRST_STAGE_PREFIX,
    UNET_PREFIX,
    Origin,
    first_stage_origins,
    text_origins,
    unet_origins,
)
from qbench.workloads.configurations import LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1, Family

UNETS: dict[str, tuple[Family, Callable[[], nn.Module]]] = {
    "bedrooms": (LDM_BEDROOMS, lambda: UNetModel(3, 224, (1, 2, 3, 4), (8, 4, 2), num_head_channels=32)),
    "churches": (
        LDM_CHURCHES,
        lambda: UNetModel(
            4, 192, (1, 2, 2, 4, 4), (1, 2, 4, 8), num_heads=8, use_scale_shift_norm=True, resblock_updown=True
        ),
    ),
    "stable-diffusion": (
        STABLE_DIFFUSION_V1,
        lambda: UNetModel(4, 320, (1, 2, 4, 4), (4, 2, 1), num_heads=8, context_dim=768),
    ),
}
STAGES: dict[str, tuple[Family, Callable[[], nn.Module]]] = {
    "bedrooms": (LDM_BEDROOMS, lambda: VQModel(3, 128, (1, 2, 4), 3, 8192, 32)),
    "churches": (LDM_CHURCHES, lambda: AutoencoderKL(3, 128, (1, 2, 4, 4), 4, 32)),
}


def sizes(network: nn.Module, prefix: str = "") -> dict[str, int]:
    return {f"{prefix}{name}": tensor.numel() for name, tensor in network.state_dict().items()}


def collected(ours: Mapping[str, int], origins: Mapping[str, Origin]) -> dict[str, int]:
    """The size of every original tensor, added up from the parameters that come from it."""
    found: dict[str, int] = {}
    for name, origin in origins.items():
        found[origin.name] = found.get(origin.name, 0) + ours[name]
    return found


def build(class_name: str, configuration: Mapping[str, Any], original: Callable[[], nn.Module]) -> Any:
    with torch.device("meta"):
        return getattr(diffusers, class_name)(**configuration), original()


@pytest.mark.parametrize("name", UNETS)
def test_the_denoisers_at_full_width(name: str) -> None:
    family, original = UNETS[name]
    ours, theirs = build(family.denoiser_class, family.denoiser, original)
    assert collected(sizes(ours), unet_origins(sizes(ours), 2)) == sizes(theirs, UNET_PREFIX)


@pytest.mark.parametrize("name", STAGES)
def test_the_first_stages_at_full_width(name: str) -> None:
    family, original = STAGES[name]
    ours, theirs = build(family.first_stage_class, family.first_stage, original)
    assert collected(sizes(ours), first_stage_origins(sizes(ours))) == sizes(theirs, FIRST_STAGE_PREFIX)


def test_text_has_its_names_already_in_every_version_of_transformers() -> None:
    expected = Origin("cond_stage_model.transformer.text_model.final_layer_norm.bias")
    for name in ("final_layer_norm.bias", "text_model.final_layer_norm.bias"):
        assert text_origins([name]) == {name: expected}


@pytest.mark.parametrize(
    ("name", "original", "third"),
    [
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight", None),
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight", None),
        ("up_blocks.1.attentions.2.to_k.bias", "output_blocks.5.1.qkv.bias", 1),
        ("down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias", None),
        ("down_blocks.0.downsamplers.0.conv1.bias", "input_blocks.3.0.in_layers.2.bias", None),
        ("mid_block.resnets.1.conv_shortcut.weight", "middle_block.2.skip_connection.weight", None),
    ],
)
def test_some_by_hand(name: str, original: str, third: int | None) -> None:
    found = unet_origins([name, "up_blocks.1.attentions.0.to_q.bias"], 2)[name]
    assert found == Origin(UNET_PREFIX + original, third)
