from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from qbench.diffusion.structures import State, call_unet
from qbench.diffusion.unet_structure import unet_structure

BATCH, TOKENS, TEXT_WIDTH = 2, 3, 10
SMALL: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 4,
}
IMAGE = SMALL | {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
TEXT = SMALL | {
    "cross_attention_dim": TEXT_WIDTH,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
CONFIGURATIONS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "image": (UNet2DModel, IMAGE),
    "image, two layers, no middle": (UNet2DModel, IMAGE | {"layers_per_block": 2, "mid_block_type": None}),
    "image, class labels": (UNet2DModel, IMAGE | {"num_class_embeds": 7}),
    "image, class timesteps": (UNet2DModel, IMAGE | {"class_embed_type": "timestep"}),
    "image, resampling in resnets, scale and shift": (
        UNet2DModel,
        IMAGE
        | {
            "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "resnet_time_scale_shift": "scale_shift",
        },
    ),
    "text": (UNet2DConditionModel, TEXT),
    "text, embedding not activated": (
        UNet2DConditionModel,
        TEXT | {"down_block_types": ("ResnetDownsampleBlock2D", "CrossAttnDownBlock2D"), "resnet_skip_time_act": True},
    ),
    "text, sdxl": (
        UNet2DConditionModel,
        TEXT
        | {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 * 4 + 12,
        },
    ),
}
ALL = pytest.mark.parametrize("name", CONFIGURATIONS)


def make(name: str) -> Any:
    torch.manual_seed(0)
    unet_class, options = CONFIGURATIONS[name]
    unet = unet_class(**options)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    return unet.eval().requires_grad_(False)


def state_for(unet: Any, draw: int = 0) -> State:
    """Another draw is another image and another text; time, class, and size are the same."""
    generator, context = torch.Generator().manual_seed(draw), dict[str, Tensor]()
    x = torch.randn(BATCH, unet.config.in_channels, 8, 8, generator=generator)
    if isinstance(unet, UNet2DConditionModel):
        context["encoder_hidden_states"] = torch.randn(BATCH, TOKENS, TEXT_WIDTH, generator=generator)
    if unet.config.get("addition_embed_type") is not None:
        context |= {"text_embeds": torch.ones(BATCH, 12), "time_ids": torch.arange(12.0).view(BATCH, 6)}
    if unet.config.num_class_embeds is not None or unet.config.class_embed_type is not None:
        context["class_labels"] = torch.tensor([1, 6])
    return State(x, torch.tensor([3, 871]), context=context)


def listening(unet: Any, kind: type[nn.Module] | tuple[type[nn.Module], ...], note: Callable[..., None]) -> list[str]:
    """Let ``note`` hear name, input and output of each layer; return their names."""
    names = [name for name, module in unet.named_modules() if isinstance(module, kind)]
    for name in names:
        unet.get_submodule(name).register_forward_hook(lambda _, given, out, name=name: note(name, given[0], out))
    return names


def forward(unet: Any, state: State) -> Tensor:
    return call_unet(unet, state.h, state.timesteps, state.context)


@ALL
def test_the_time_path_is_all_that_sees_neither_image_nor_text(name: str) -> None:
    unet = make(name)
    seen: dict[str, list[Tensor]] = {}
    path = unet_structure(unet).time_path
    assert path is not None
    layers = listening(unet, (nn.Conv2d, nn.Linear), lambda layer, x, _: seen.setdefault(layer, []).append(x))
    forward(unet, state_for(unet))
    forward(unet, state_for(unet, 1))
    indifferent = [layer for layer, (first, second) in seen.items() if torch.equal(first, second)]
    on_path = [layer for module in path.modules for layer in layers if f"{layer}.".startswith(f"{module}.")]
    assert on_path == indifferent
    assert 0 < len(on_path) < len(layers)


@ALL
def test_it_gives_what_the_blocks_are_given_in_the_forward(name: str) -> None:
    unet = make(name)
    path, heard, state = unet_structure(unet).time_path, list[Tensor](), state_for(unet)
    assert path is not None
    assert path.kind == "embedding"
    projections = [module for module in path.modules if "resnets" in module or "samplers" in module]
    for projection in projections:
        unet.get_submodule(projection).register_forward_hook(lambda _, __, out: heard.append(out))
    forward(unet, state)
    wanted = torch.cat(heard, dim=1)
    heard.clear()
    found = path.run(unet, state)
    assert torch.equal(found.h, wanted)
    assert len(heard) == len(projections)
    embedded = unet_structure(make(name)).segments[0].run(unet, state)
    assert found.embedding is not None
    assert torch.equal(found.embedding, embedded.embedding)
    assert replace(found, h=state.h, embedding=None) == state


@ALL
def test_shortcuts_and_downsamplers_are_named_as_the_layers_are(name: str) -> None:
    unet = make(name)
    structure = unet_structure(unet)
    layers = [layer for layer, module in unet.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert set(structure.shortcuts) | set(structure.downsamplers) <= set(layers)
    assert set(structure.splits) < set(structure.shortcuts)


def test_all_shortcuts_are_found() -> None:
    assert unet_structure(make("image")).shortcuts == (
        "down_blocks.1.resnets.0.conv_shortcut",
        "up_blocks.0.resnets.0.conv_shortcut",
        "up_blocks.0.resnets.1.conv_shortcut",
        "up_blocks.1.resnets.0.conv_shortcut",
        "up_blocks.1.resnets.1.conv_shortcut",
    )


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_downsampler_is_a_convolution_of_its_own(name: str) -> None:
    unet = make(name)
    (found,) = unet_structure(unet).downsamplers
    assert unet.get_submodule(found) is unet.down_blocks[0].downsamplers[0].conv
    assert unet.get_submodule(found).stride == (2, 2)


@pytest.mark.parametrize("name", ["image, resampling in resnets, scale and shift", "text, embedding not activated"])
def test_a_block_that_lowers_the_resolution_on_its_way_is_no_downsampler(name: str) -> None:
    assert unet_structure(make(name)).downsamplers == ()
