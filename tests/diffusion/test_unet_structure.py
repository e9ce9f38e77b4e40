from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from qbench.diffusion.shortcut_splits import shortcut_splits
from qbench.diffusion.structures import Segment, State, call_unet
from qbench.diffusion.unet_structure import unet_structure
from qbench.errors import StageError

BATCH = 2
TOKENS = 5
TEXT_WIDTH = 10
CROSS_DOWN = "CrossAttnDownBlock2D"
CROSS_UP = "CrossAttnUpBlock2D"

DDPM: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 24),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "layers_per_block": 1,
}
LDM: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 24),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "layers_per_block": 1,
}
SD: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 24),
    "norm_num_groups": 4,
    "cross_attention_dim": TEXT_WIDTH,
    "down_block_types": (CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP),
    "attention_head_dim": 4,
    "layers_per_block": 1,
}
SDXL: dict[str, Any] = SD | {
    "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
    "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 6),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 12,
}
RESNET_SAMPLING: dict[str, Any] = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
}

UNCONDITIONAL: dict[str, dict[str, Any]] = {
    "ddpm-cifar10": DDPM | {"layers_per_block": 2},
    "ddpm-256": DDPM
    | {
        "block_out_channels": (8, 8, 12, 12, 16, 16),
        "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
        "sample_size": 32,
    },
    "ldm-4": LDM | {"layers_per_block": 2},
    "ldm-8": LDM | RESNET_SAMPLING | {"resnet_time_scale_shift": "scale_shift"},
    "ldm-super-resolution": LDM | {"in_channels": 6},
    "resnet-sampling": LDM | RESNET_SAMPLING,
    "scale-shift": DDPM | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "no-mid-attention": DDPM | {"add_attention": False},
    "no-mid-block": DDPM | {"mid_block_type": None},
    "centered-input": DDPM | {"center_input_sample": True},
    "rescaled-mid-block": DDPM | {"mid_block_scale_factor": 1.7, "act_fn": "gelu", "time_embedding_dim": 20},
    "class-labels": LDM | {"num_class_embeds": 7},
    "class-timesteps": LDM | {"class_embed_type": "timestep"},
    "class-vectors": LDM | {"class_embed_type": "identity"},
}
CONDITIONAL: dict[str, dict[str, Any]] = {
    "ldm-text2im": SD | {"layers_per_block": 2},
    "sd-1": SD,
    "sd-1-odd-size": SD | {"sample_size": 13},
    "sd-1-odd-and-even": SD | {"sample_size": (12, 14)},
    "sd-2": SD | {"use_linear_projection": True, "attention_head_dim": (2, 4, 6), "upcast_attention": True},
    "sd-2-odd-heads": SD | {"use_linear_projection": True, "attention_head_dim": (3, 5, 7)},
    "sd-1-odd-heads": SD | {"attention_head_dim": (3, 5, 7)},
    "sd-x4-upscaler": SD
    | {
        "in_channels": 7,
        "num_class_embeds": 1000,
        "only_cross_attention": (True, True, False),
        "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
    },
    "sd-inpainting": SD | {"in_channels": 9},
    "sdxl-base": SDXL,
    "sdxl-odd-size": SDXL | {"sample_size": (11, 16)},
    "sdxl-refiner": SDXL
    | {
        "block_out_channels": (8, 16, 24, 24),
        "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP, "UpBlock2D"),
        "attention_head_dim": (2, 4, 6, 6),
        "transformer_layers_per_block": 2,
        "projection_class_embeddings_input_dim": 5 * 4 + 12,
    },
    "text-no-mid-block": SD | {"mid_block_type": None},
    "text-resnet-mid-block": SD | {"mid_block_type": "UNetMidBlock2D", "center_input_sample": True},
    "text-self-attention": SD
    | {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", CROSS_DOWN),
        "up_block_types": (CROSS_UP, "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "resnet_time_scale_shift": "scale_shift",
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 1.3,
    },
    "text-uneven-layers": SD
    | {
        "layers_per_block": (1, 2, 1),
        "cross_attention_dim": (TEXT_WIDTH, TEXT_WIDTH, TEXT_WIDTH),
        "transformer_layers_per_block": (1, (1, 2), 1),
        "reverse_transformer_layers_per_block": (1, (2, 1, 1), (1, 3)),
    },
}
CONFIGURATIONS = UNCONDITIONAL | CONDITIONAL


class Scaled(nn.Module):
    """Takes the place of a layer and changes what it does."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(1.25 * x)
        return result


def randomized(unet: Any) -> Any:
    """Norms and biases are drawn as well, as a fresh one would hide a mistake."""
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    return unet.eval().requires_grad_(False)


def make(name: str, **changes: Any) -> Any:
    torch.manual_seed(sum(map(ord, name)))
    unet_class = UNet2DModel if name in UNCONDITIONAL else UNet2DConditionModel
    return randomized(unet_class(**(CONFIGURATIONS[name] | changes)))


def context_of(unet: Any) -> dict[str, Tensor]:
    context = {}
    config = unet.config
    if isinstance(unet, UNet2DConditionModel):
        context["encoder_hidden_states"] = torch.randn(BATCH, TOKENS, TEXT_WIDTH)
    if config.get("addition_embed_type") == "text_time":
        context["text_embeds"] = torch.randn(BATCH, 12)
        added = (config["projection_class_embeddings_input_dim"] - 12) // config["addition_time_embed_dim"]
        context["time_ids"] = torch.randint(0, 1024, (BATCH, added)).float()
    if config.num_class_embeds is not None:
        context["class_labels"] = torch.tensor([1, 6])
    elif config.class_embed_type == "timestep":
        context["class_labels"] = torch.tensor([30, 700])
    elif config.class_embed_type == "identity":
        context["class_labels"] = torch.randn(BATCH, unet.time_embedding.linear_2.out_features)
    return context


def state_for(unet: Any) -> State:
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    x = torch.randn(BATCH, unet.config.in_channels, height, width)
    return State(x, torch.tensor([3, 871]), context=context_of(unet))


def forward(unet: Any, state: State) -> Tensor:
    return call_unet(unet, state.h, state.timesteps, state.context)


def layer_names(unet: Any) -> list[str]:
    return [name for name, module in unet.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def prefixes(segment: Segment) -> tuple[str, ...]:
    return tuple(f"{name}." for name in segment.modules)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_segments_compose_to_the_forward(name: str) -> None:
    unet = make(name)
    state = state_for(unet)
    expected = forward(unet, state)
    assert expected.isfinite().all()
    assert expected.std() > 0
    assert torch.equal(unet_structure(unet).compose(unet, state), expected)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_layer_is_in_one_segment_and_run_by_it(name: str) -> None:
    unet = make(name)
    state = state_for(unet)
    ran: list[str] = []
    for layer in layer_names(unet):
        unet.get_submodule(layer).register_forward_pre_hook(lambda _module, _inputs, layer=layer: ran.append(layer))
    forward(unet, state)
    in_forward = ran.copy()
    composed = []
    segments = unet_structure(unet).segments
    for segment in segments:
        ran.clear()
        state = segment.run(unet, state)
        assert set(ran) == {layer for layer in layer_names(unet) if f"{layer}.".startswith(prefixes(segment))}
        composed += ran
    assert composed == in_forward
    assert sorted(composed) == sorted(layer_names(unet))
    assert len({segment.name for segment in segments}) == len(segments)


@pytest.mark.parametrize("name", ["ddpm-cifar10", "ldm-8", "sd-x4-upscaler", "sdxl-base"])
def test_layers_replaced_in_place_are_found(name: str) -> None:
    unet = make(name)
    state = state_for(unet)
    structure = unet_structure(unet)
    before = forward(unet, state)
    for layer in layer_names(unet):
        parent, _, child = layer.rpartition(".")
        setattr(unet.get_submodule(parent), child, Scaled(unet.get_submodule(layer)))
    after = forward(unet, state)
    assert not torch.equal(before, after)
    assert torch.equal(structure.compose(unet, state), after)


@pytest.mark.parametrize("name", ["class-labels", "sd-x4-upscaler", "sdxl-base"])
def test_the_embedding_segment_changes_only_the_embedding(name: str) -> None:
    unet = make(name)
    before = state_for(unet)
    segment = unet_structure(unet).segments[0]
    after = segment.run(unet, before)
    assert segment.kind == "embedding"
    assert after.embedding is not None
    assert after.embedding.shape == (BATCH, 32)
    assert replace(after, embedding=None) == before


def test_nothing_is_left_over_at_the_end() -> None:
    unet = make("sdxl-base")
    state = state_for(unet)
    for segment in unet_structure(unet).segments:
        state = segment.run(unet, state)
    assert state.skips == ()


def test_segments_of_a_denoiser_with_self_attention() -> None:
    config = {"block_out_channels": (8, 16)}
    types = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    structure = unet_structure(UNet2DModel(**(LDM | config | types)))
    assert structure.boundary_layers == ("conv_in", "conv_out")
    assert [(segment.name, segment.kind) for segment in structure.segments] == [
        ("time_embedding", "embedding"),
        ("conv_in", "convolution"),
        ("down_blocks.0.resnets.0", "residual"),
        ("down_blocks.0.downsamplers.0", "convolution"),
        ("down_blocks.1.resnets.0", "residual"),
        ("down_blocks.1.attentions.0", "attention"),
        ("mid_block.resnets.0", "residual"),
        ("mid_block.attentions.0", "attention"),
        ("mid_block.resnets.1", "residual"),
        ("up_blocks.0.resnets.0", "residual"),
        ("up_blocks.0.attentions.0", "attention"),
        ("up_blocks.0.resnets.1", "residual"),
        ("up_blocks.0.attentions.1", "attention"),
        ("up_blocks.0.upsamplers.0", "convolution"),
        ("up_blocks.1.resnets.0", "residual"),
        ("up_blocks.1.resnets.1", "residual"),
        ("conv_out", "convolution"),
    ]


def test_segments_of_a_transformer() -> None:
    segments = unet_structure(make("sdxl-base")).segments
    name = "down_blocks.1.attentions.0"
    assert [(each.name, each.kind, each.modules) for each in segments if each.name.startswith(name)] == [
        (f"{name}.proj_in", "convolution", (f"{name}.norm", f"{name}.proj_in")),
        (f"{name}.transformer_blocks.0", "attention", (f"{name}.transformer_blocks.0",)),
        (f"{name}.transformer_blocks.1", "attention", (f"{name}.transformer_blocks.1",)),
        (f"{name}.proj_out", "convolution", (f"{name}.proj_out",)),
    ]


def test_resnets_that_resample_are_residual() -> None:
    kinds = {segment.name: segment.kind for segment in unet_structure(make("ldm-8")).segments}
    assert kinds["down_blocks.0.downsamplers.0"] == "residual"
    assert kinds["up_blocks.0.upsamplers.0"] == "residual"


def test_splits_are_part_of_the_structure() -> None:
    unet = make("ddpm-cifar10")
    assert unet_structure(unet).splits == shortcut_splits(unet) != {}


def test_half_precision_is_cast_as_the_forward_casts() -> None:
    for name in ("class-labels", "sdxl-base"):
        unet = make(name).bfloat16()
        state = state_for(unet)
        floats = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state.context.items()}
        state = replace(state, h=state.h.bfloat16(), context=floats)
        assert torch.equal(unet_structure(unet).compose(unet, state), forward(unet, state))


@pytest.mark.parametrize("seed", range(16))
def test_whatever_is_accepted_composes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def one_of(*values: Any) -> Any:
        return values[int(torch.randint(len(values), (), generator=generator))]

    conditional = one_of(True, False)
    downs = ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"] + [CROSS_DOWN] * conditional
    ups = ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"] + [CROSS_UP] * conditional
    options = {
        "sample_size": 8,
        "norm_num_groups": 4,
        "block_out_channels": [one_of(8, 16, 24) for _ in range(3)],
        "down_block_types": [one_of(*downs) for _ in range(3)],
        "up_block_types": [one_of(*ups) for _ in range(3)],
        "mid_block_type": one_of("UNetMidBlock2D", None, *["UNetMidBlock2DCrossAttn"] * conditional),
        "layers_per_block": one_of(1, 2),
        "attention_head_dim": one_of(2, 4),
        "center_input_sample": one_of(True, False),
        "flip_sin_to_cos": one_of(True, False),
        "downsample_padding": one_of(0, 1),
        "resnet_time_scale_shift": one_of("default", "scale_shift"),
        "num_class_embeds": one_of(None, 7),
    }
    if conditional:
        options |= {
            "cross_attention_dim": TEXT_WIDTH,
            "use_linear_projection": one_of(True, False),
            "only_cross_attention": one_of(True, False),
            "transformer_layers_per_block": one_of(1, 2),
        }
    else:
        options |= {"downsample_type": one_of("conv", "resnet"), "upsample_type": one_of("conv", "resnet")}
    torch.manual_seed(seed)
    unet = randomized((UNet2DConditionModel if conditional else UNet2DModel)(**options))
    state = state_for(unet)
    assert torch.equal(unet_structure(unet).compose(unet, state), forward(unet, state)), options


@pytest.mark.parametrize(
    ("name", "changes", "block"),
    [
        ("ddpm-cifar10", {"down_block_types": ("DownBlock2D", "SkipDownBlock2D", "DownBlock2D")}, "SkipDownBlock2D"),
        ("ddpm-cifar10", {"up_block_types": ("UpBlock2D", "SkipUpBlock2D", "UpBlock2D")}, "SkipUpBlock2D"),
        (
            "sd-1",
            {"down_block_types": (CROSS_DOWN, "SimpleCrossAttnDownBlock2D", "DownBlock2D")},
            "SimpleCrossAttnDownBlock2D",
        ),
        ("sd-1", {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "UNetMidBlock2DSimpleCrossAttn"),
        (
            "sd-1",
            {"up_block_types": ("UpBlock2D", CROSS_UP, "SimpleCrossAttnUpBlock2D")},
            "SimpleCrossAttnUpBlock2D",
        ),
        (
            "sd-1",
            {"block_out_channels": (32, 32, 32), "down_block_types": (CROSS_DOWN, "KDownBlock2D", "DownBlock2D")},
            "KDownBlock2D",
        ),
    ],
)
def test_blocks_that_are_not_known_are_refused(name: str, changes: dict[str, Any], block: str) -> None:
    with pytest.raises(StageError, match=f"is a {block};"):
        unet_structure(make(name, **changes))


def test_other_modules_are_refused() -> None:
    with pytest.raises(StageError, match="is a Conv2d; only as UNet2DConditionModel or UNet2DModel"):
        unet_structure(nn.Conv2d(3, 3, 1))


def test_derived_classes_are_refused() -> None:
    class Derived(UNet2DModel):
        pass

    with pytest.raises(StageError, match="is a Derived"):
        unet_structure(Derived(**DDPM))


def test_freeu_is_refused_until_it_is_switched_off() -> None:
    unet = make("sd-1")
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    with pytest.raises(StageError, match="FreeU"):
        unet_structure(unet)
    unet.disable_freeu()
    state = state_for(unet)
    assert torch.equal(unet_structure(unet).compose(unet, state), forward(unet, state))


def test_a_replaced_forward_is_refused() -> None:
    unet = make("sd-1")
    block = unet.up_blocks[1]
    block.forward = block.forward
    with pytest.raises(StageError, match=r"forward of up_blocks\.1"):
        unet_structure(unet)


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("mid_block.resnets.0", nn.Identity()),
        ("mid_block.attentions.0", nn.Identity()),
        ("down_blocks.0.attentions.0.transformer_blocks.0", nn.Identity()),
        ("down_blocks.0.downsamplers.0", nn.Identity()),
        ("up_blocks.0.upsamplers.0", nn.Identity()),
    ],
)
def test_replaced_parts_are_refused(path: str, other: nn.Module) -> None:
    unet = make("sd-1")
    parent, _, child = path.rpartition(".")
    setattr(unet.get_submodule(parent), child, other)
    with pytest.raises(StageError, match=f"{path} is a Identity"):
        unet_structure(unet)


def test_parameters_outside_of_the_segments_are_refused() -> None:
    unet = make("sd-1")
    unet.mid_block.gate = nn.Linear(2, 2)
    with pytest.raises(StageError, match=r"mid_block\.gate\.weight"):
        unet_structure(unet)


def test_options_that_are_not_followed_are_refused() -> None:
    with pytest.raises(StageError, match="time_embedding_type 'fourier'"):
        unet_structure(make("ddpm-cifar10", time_embedding_type="fourier"))


@pytest.mark.parametrize(
    ("name", "key"),
    [("sd-1", "encoder_attention_mask"), ("sd-1", "timestep_cond"), ("ddpm-cifar10", "class_labels")],
)
def test_conditioning_that_the_segments_would_ignore_is_refused(name: str, key: str) -> None:
    unet = make(name)
    state = state_for(unet)
    state = replace(state, context={**state.context, key: torch.ones(BATCH, TOKENS)})
    with pytest.raises(StageError, match=key):
        unet_structure(unet).compose(unet, state)
