import inspect
from typing import Any

import pytest
from diffusers import UNet2DConditionModel, UNet2DModel

from qbench.diffusion.unet_options import FREE_OPTIONS, check_options
from qbench.errors import StageError

UNCONDITIONAL: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
CONDITIONAL: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "cross_attention_dim": 10,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
PROJECTED = {"projection_class_embeddings_input_dim": 6}


@pytest.mark.parametrize(
    ("option", "value", "companions"),
    [("time_embedding_type", "fourier", {}), ("time_embedding_type", "learned", {"num_train_timesteps": 9})],
)
def test_options_that_are_not_followed_are_refused(option: str, value: Any, companions: dict[str, Any]) -> None:
    with pytest.raises(StageError, match=f"a UNet2DModel with {option} {value!r} cannot"):
        check_options(UNet2DModel(**UNCONDITIONAL, **companions, **{option: value}))


@pytest.mark.parametrize(
    ("option", "value", "companions"),
    [
        ("addition_embed_type", "text", {"addition_embed_type_num_heads": 2}),
        ("addition_embed_type", "text_image", {}),
        ("addition_embed_type_num_heads", 2, {}),
        ("attention_type", "gated", {}),
        ("class_embed_type", "identity", {}),
        ("class_embed_type", "projection", PROJECTED),
        ("class_embed_type", "simple_projection", PROJECTED),
        ("class_embed_type", "timestep", {}),
        ("class_embeddings_concat", True, {"num_class_embeds": 3}),
        ("conv_in_kernel", 1, {}),
        ("conv_out_kernel", 1, {}),
        ("cross_attention_norm", "layer_norm", {}),
        ("dual_cross_attention", True, {}),
        ("encoder_hid_dim", 6, {}),
        ("mid_block_only_cross_attention", True, {}),
        ("time_cond_proj_dim", 6, {}),
        ("time_embedding_act_fn", "silu", {}),
        ("time_embedding_type", "fourier", {}),
        ("timestep_post_act", "silu", {}),
    ],
)
def test_options_of_the_text_model_are_refused(option: str, value: Any, companions: dict[str, Any]) -> None:
    with pytest.raises(StageError, match=f"a UNet2DConditionModel with {option} {value!r} cannot"):
        check_options(UNet2DConditionModel(**CONDITIONAL, **companions, **{option: value}))


def test_an_adapter_that_changes_the_text_is_refused() -> None:
    unet = UNet2DConditionModel(**CONDITIONAL)
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    with pytest.raises(StageError, match="encoder_hid_dim_type 'ip_image_proj'"):
        check_options(unet)


@pytest.mark.parametrize("unet", [UNet2DModel(**UNCONDITIONAL), UNet2DConditionModel(**CONDITIONAL)])
def test_an_option_of_a_later_diffusers_must_have_its_default(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = inspect.signature(type(unet))
    later = inspect.Parameter("wormhole", inspect.Parameter.KEYWORD_ONLY, default="closed")
    extended = signature.replace(parameters=[*signature.parameters.values(), later])
    monkeypatch.setattr(type(unet), "__signature__", extended, raising=False)
    unet.register_to_config(wormhole="closed")
    check_options(unet)
    unet.register_to_config(wormhole="open")
    with pytest.raises(StageError, match="wormhole 'open'"):
        check_options(unet)


def test_free_options_exist() -> None:
    existing = {name for each in (UNet2DModel, UNet2DConditionModel) for name in inspect.signature(each).parameters}
    assert existing >= FREE_OPTIONS
