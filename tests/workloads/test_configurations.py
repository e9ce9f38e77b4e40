from collections.abc import Mapping
from typing import Any

import diffusers
import pytest
import torch

from qbench.diffusion.unet_structure import unet_structure
from qbench.workloads.configurations import DDPM_CIFAR10, LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1, Family


def build(class_name: str, configuration: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return getattr(diffusers, class_name)(**configuration)


def parameters(network: Any) -> int:
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize(
    ("class_name", "configuration", "count", "millions"),
    [
        ("UNet2DModel", DDPM_CIFAR10, 35_746_307, 35.75),
        ("UNet2DModel", LDM_BEDROOMS.denoiser, 274_056_163, 274.06),
        ("UNet2DModel", LDM_CHURCHES.denoiser, 294_966_916, 294.97),
        ("UNet2DConditionModel", STABLE_DIFFUSION_V1.denoiser, 859_520_964, 859.52),
    ],
)
def test_the_denoisers_have_the_published_size(
    class_name: str, configuration: Mapping[str, Any], count: int, millions: float
) -> None:
    unet = build(class_name, configuration)
    assert parameters(unet) == count
    assert round(count / 1e6, 2) == millions
    structure = unet_structure(unet)
    resnets = sum(len(block.resnets) for block in unet.up_blocks)
    assert len(structure.splits) == resnets
    assert structure.boundary_layers == ("conv_in", "conv_out")


@pytest.mark.parametrize(
    ("family", "count"), [(LDM_BEDROOMS, 55_322_782), (LDM_CHURCHES, 83_653_863), (STABLE_DIFFUSION_V1, 83_653_863)]
)
def test_the_first_stages_build(family: Family, count: int) -> None:
    assert parameters(build(family.first_stage_class, family.first_stage)) == count


@pytest.mark.parametrize("family", [LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1])
def test_the_schedulers_build(family: Family) -> None:
    settings = dict(family.scheduler)
    scheduler = getattr(diffusers, settings.pop("_class_name"))(**settings)
    betas = torch.linspace(settings["beta_start"] ** 0.5, settings["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    assert torch.allclose(scheduler.betas.double(), betas, rtol=1e-5)


def test_the_text_model_is_that_of_clip_vit_l() -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(**(STABLE_DIFFUSION_V1.text_encoder or {})))
    assert parameters(text) == 123_060_480


@pytest.mark.parametrize(
    ("family", "latents", "images"),
    [
        (LDM_BEDROOMS, (3, 64, 64), (3, 256, 256)),
        (LDM_CHURCHES, (4, 32, 32), (3, 256, 256)),
        (STABLE_DIFFUSION_V1, (4, 64, 64), (3, 512, 512)),
    ],
)
def test_the_shapes(family: Family, latents: tuple[int, ...], images: tuple[int, ...]) -> None:
    assert family.shapes == (latents, images)


@pytest.mark.parametrize("family", [LDM_BEDROOMS, LDM_CHURCHES])
def test_heads_divide_every_width(family: Family) -> None:
    for width in family.denoiser["block_out_channels"]:
        assert width % (family.heads or family.denoiser["attention_head_dim"]) == 0
