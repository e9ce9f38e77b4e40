"""Which options of diffusers' UNets the segments of their forward follow."""

from inspect import signature

from diffusers import UNet2DConditionModel, UNet2DModel

from qbench.errors import StageError

FREE_OPTIONS = frozenset(
    {
        "act_fn",
        "add_attention",
        "addition_time_embed_dim",
        "attention_head_dim",
        "attn_norm_num_groups",
        "block_out_channels",
        "center_input_sample",
        "cross_attention_dim",
        "down_block_types",
        "downsample_padding",
        "downsample_type",
        "dropout",
        "flip_sin_to_cos",
        "freq_shift",
        "in_channels",
        "layers_per_block",
        "mid_block_scale_factor",
        "mid_block_type",
        "norm_eps",
        "norm_num_groups",
        "num_class_embeds",
        "num_train_timesteps",
        "only_cross_attention",
        "out_channels",
        "projection_class_embeddings_input_dim",
        "resnet_out_scale_factor",
        "resnet_skip_time_act",
        "reverse_transformer_layers_per_block",
        "sample_size",
        "time_embedding_dim",
        "transformer_layers_per_block",
        "up_block_types",
        "upcast_attention",
        "upsample_type",
        "use_linear_projection",
    }
)
"""May have any value: they shape modules that a segment calls as the forward does, or name blocks, which are checked
by their class. ``center_input_sample`` is read when the model runs."""

FOLLOWED_VALUES: dict[type, dict[str, tuple[str | None, ...]]] = {
    UNet2DModel: {
        "class_embed_type": (None, "timestep", "identity"),
        "resnet_time_scale_shift": ("default", "scale_shift"),
    },
    UNet2DConditionModel: {
        "addition_embed_type": (None, "text_time"),
        "resnet_time_scale_shift": ("default", "scale_shift"),
    },
}
"""The values of options that change the forward itself. Every option in neither table, such as one that a later
diffusers adds, must have its default."""


def check_options(unet: UNet2DModel | UNet2DConditionModel) -> None:
    """Refuse a UNet whose forward is not the one that the segments repeat.

    Args:
        unet: exactly of one of the two classes.

    Raises:
        StageError: an option has a value that is not followed; the message names both.
    """
    followed = FOLLOWED_VALUES[type(unet)]
    for option, parameter in signature(type(unet)).parameters.items():
        value = unet.config[option]
        if option not in FREE_OPTIONS and value not in followed.get(option, (parameter.default,)):
            raise StageError(
                f"a {type(unet).__name__} with {option} {value!r} cannot be taken apart into segments, as they do not "
                f"follow what this option changes"
            )
