"""The networks of the latent stand-ins: first stages, denoisers, and what reads captions.

Each has the structure of the network that it stands for, at a size that trains on a CPU in less than an hour.
"""

from typing import TYPE_CHECKING, Any

from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from torch import Tensor, nn

if TYPE_CHECKING:
    from open_clip import CLIP
    from transformers import CLIPTextModel

IMAGE_SHAPE = (1, 32, 32)
"""Channels, height and width of an image."""

VQ_LATENT_SHAPE = (3, 8, 8)
"""Of ``fashion-vq``."""

KL_LATENT_SHAPE = (4, 8, 8)
"""Of ``fashion-kl``."""

TOKENS = 16
"""Tokens of a caption, the begin and end marks included."""

TEXT_WIDTH = 64
"""Width of what the denoiser reads of a caption."""

_FIRST_STAGE: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 48),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 32,
}


def fashion_vq() -> VQModel:
    """A freshly initialized first stage with a codebook: images [N, 1, 32, 32], latents [N, 3, 8, 8], 512 codes."""
    model = VQModel(**_FIRST_STAGE, latent_channels=3, num_vq_embeddings=512, vq_embed_dim=3)
    nn.init.normal_(model.quantize.embedding.weight)
    return model


def fashion_kl() -> AutoencoderKL:
    """A freshly initialized variational first stage: images [N, 1, 32, 32], latents [N, 4, 8, 8]."""
    return AutoencoderKL(**_FIRST_STAGE, latent_channels=4)


def tiny_ldm_denoiser() -> UNet2DModel:
    """A freshly initialized denoiser with the layout of LDM-4 on LSUN-Bedrooms: latents [N, 3, 8, 8]."""
    return UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=24,
        norm_num_groups=8,
        num_train_timesteps=1000,
    )


def tiny_ldm_kl_denoiser() -> UNet2DModel:
    """A freshly initialized denoiser with the layout of LDM-8 on LSUN-Churches: latents [N, 4, 8, 8].

    Residual blocks are scaled and shifted by the timestep, and residual blocks change the size of maps.
    """
    return UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 80),
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,
        attn_norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        downsample_type="resnet",
        upsample_type="resnet",
        num_train_timesteps=1000,
    )


def tiny_sd_denoiser() -> UNet2DConditionModel:
    """A freshly initialized denoiser with the layout of Stable Diffusion: latents [N, 4, 8, 8], text [N, 16, 64]."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(40, 80),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # which is the number of heads in this class
        norm_num_groups=8,
    )


def tiny_sd_text_encoder(vocabulary: int, end: int) -> "CLIPTextModel":
    """A freshly initialized text encoder of CLIP's layout: tokens [N, 16] to [N, 16, 64].

    Args:
        vocabulary: Number of tokens.
        end: The token that ends a caption and pads it.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    return CLIPTextModel(config)


class TinySD(nn.Module):
    """Denoiser and text encoder of ``tiny-sd``, trained together.

    Args:
        vocabulary: Number of tokens.
        end: The token that ends a caption.
    """

    def __init__(self, vocabulary: int, end: int) -> None:
        super().__init__()
        self.unet = tiny_sd_denoiser()
        self.text_encoder = tiny_sd_text_encoder(vocabulary, end)
        if hasattr(self.text_encoder, "text_model"):
            self.register_state_dict_post_hook(_without_text_model)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_with_text_model)  # type: ignore[no-untyped-call]

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Noise in latents [N, 4, 8, 8] at timesteps [N], given captions as tokens [N, 16]."""
        text = self.text_encoder(tokens).last_hidden_state
        noise: Tensor = self.unet(latents, timesteps, encoder_hidden_states=text).sample
        return noise


_STORED, _NAMED = "text_encoder.", "text_encoder.text_model."
"""How a name of the text encoder begins in our files, and in releases of transformers that nest it once more."""


def _without_text_model(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    _rename(state, prefix + _NAMED, prefix + _STORED)


def _with_text_model(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    _rename(state, prefix + _STORED, prefix + _NAMED)


def _rename(state: dict[str, Tensor], old: str, new: str) -> None:
    for name in [name for name in state if name.startswith(old)]:
        state[new + name.removeprefix(old)] = state.pop(name)


def clip_tiny(vocabulary: int) -> "CLIP":
    """A freshly initialized image-text model of open_clip: RGB images [N, 3, 32, 32], tokens [N, 16].

    Args:
        vocabulary: Number of tokens; the last of them ends a caption.
    """
    from open_clip import CLIP

    vision = {"layers": 3, "width": 64, "head_width": 16, "patch_size": 4, "image_size": 32}
    text = {"context_length": TOKENS, "vocab_size": vocabulary, "width": 64, "heads": 4, "layers": 2}
    return CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text)
