import inspect
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.unets import unet_2d_blocks
from torch import Tensor

from qbench.diffusion.shortcut_splits import CONCATENATING_BLOCKS, shortcut_splits
from qbench.errors import StageError

TEXT_WIDTH = 10
PLAIN: dict[str, Any] = {
    "block_out_channels": (8, 16, 24),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D"),
}
TEXT: dict[str, Any] = PLAIN | {"cross_attention_dim": TEXT_WIDTH}
SKIPPING: dict[str, Any] = {
    "block_out_channels": (32, 64, 32),
    "down_block_types": ("SkipDownBlock2D", "SkipDownBlock2D", "SkipDownBlock2D"),
}
K: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "cross_attention_dim": TEXT_WIDTH,
    "mid_block_type": None,
    "time_embedding_dim": 64,
    "attention_head_dim": 32,
    "norm_num_groups": None,
    "act_fn": "gelu",
    "layers_per_block": 3,
}
UNCONDITIONAL: dict[str, dict[str, Any]] = {
    "UpBlock2D": PLAIN | {"up_block_types": ("UpBlock2D", "UpBlock2D", "UpBlock2D")},
    "AttnUpBlock2D": PLAIN | {"up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D")},
    "ResnetUpsampleBlock2D": PLAIN
    | {"up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D")},
    "no middle": PLAIN | {"up_block_types": ("UpBlock2D", "UpBlock2D", "UpBlock2D"), "mid_block_type": None},
    "wide at both ends": PLAIN
    | {"up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), "block_out_channels": (24, 8, 16)},
    "SkipUpBlock2D": SKIPPING | {"up_block_types": ("SkipUpBlock2D", "SkipUpBlock2D", "SkipUpBlock2D")},
    "AttnSkipUpBlock2D": SKIPPING | {"up_block_types": ("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D")},
}
CONDITIONAL: dict[str, dict[str, Any]] = {
    "CrossAttnUpBlock2D": TEXT | {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")},
    "SimpleCrossAttnUpBlock2D": TEXT
    | {
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    },
    "KUpBlock2D": K
    | {
        "down_block_types": ("KDownBlock2D", "KDownBlock2D", "KDownBlock2D"),
        "up_block_types": ("KUpBlock2D", "KUpBlock2D", "KUpBlock2D"),
    },
    "KCrossAttnUpBlock2D": K
    | {
        "down_block_types": ("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        "up_block_types": ("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
    },
}
CONFIGURATIONS = UNCONDITIONAL | CONDITIONAL


def make(name: str) -> Any:
    unet_class = UNet2DModel if name in UNCONDITIONAL else UNet2DConditionModel
    return unet_class(**CONFIGURATIONS[name], sample_size=16).eval()


def widths_seen(unet: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """For each shortcut convolution on a concatenation, how wide its first half was in a forward."""
    original = torch.cat
    concatenated: list[tuple[Tensor, int]] = []
    widths = {}

    def record(tensors: Any, dim: int = 0) -> Tensor:
        result = original(tensors, dim=dim)
        concatenated.append((result, tensors[0].shape[1]))
        return result

    def look(name: str, entered: Tensor) -> None:
        widths.update((name, width) for result, width in concatenated if result is entered)

    for name, module in unet.named_modules():
        if getattr(module, "conv_shortcut", None) is not None:
            shortcut = f"{name}.conv_shortcut"
            module.register_forward_pre_hook(lambda _module, inputs, name=shortcut: look(name, inputs[0]))
    monkeypatch.setattr(torch, "cat", record)
    text = {"encoder_hidden_states": torch.randn(2, 3, TEXT_WIDTH)} if isinstance(unet, UNet2DConditionModel) else {}
    with torch.no_grad():
        unet(torch.randn(2, unet.config.in_channels, 16, 16), torch.tensor([3, 871]), **text)
    return widths


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # older releases of diffusers do it themselves
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_splits_are_where_the_forward_concatenates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = make(name)
    splits = shortcut_splits(unet)
    assert splits
    assert splits == widths_seen(unet, monkeypatch)


def test_every_block_that_takes_skips_is_known_and_among_the_configurations() -> None:
    taking = {
        block
        for block in vars(unet_2d_blocks).values()
        if hasattr(block, "forward") and "res_hidden_states_tuple" in inspect.signature(block.forward).parameters
    }
    tried = {type(block) for name in CONFIGURATIONS for block in make(name).up_blocks}
    assert taking == tried == CONCATENATING_BLOCKS


def test_the_first_resnet_is_split_at_the_width_of_the_block_before() -> None:
    assert shortcut_splits(make("UpBlock2D")) == {
        "up_blocks.0.resnets.0.conv_shortcut": 24,
        "up_blocks.0.resnets.1.conv_shortcut": 24,
        "up_blocks.0.resnets.2.conv_shortcut": 24,
        "up_blocks.1.resnets.0.conv_shortcut": 24,
        "up_blocks.1.resnets.1.conv_shortcut": 16,
        "up_blocks.1.resnets.2.conv_shortcut": 16,
        "up_blocks.2.resnets.0.conv_shortcut": 16,
        "up_blocks.2.resnets.1.conv_shortcut": 8,
        "up_blocks.2.resnets.2.conv_shortcut": 8,
    }


def test_blocks_of_other_types_are_refused() -> None:
    unet = make("UpBlock2D")
    unet.up_blocks[1] = unet_2d_blocks.UpDecoderBlock2D(8, 8, resnet_groups=4)
    with pytest.raises(StageError, match=r"up_blocks\.1 .* is a UpDecoderBlock2D"):
        shortcut_splits(unet)
