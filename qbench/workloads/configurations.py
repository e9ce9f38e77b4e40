"""The networks behind the published figures, as configurations of diffusers: read without torch.

Sources: ``models/ldm/lsun_beds256/config.yaml`` and ``models/ldm/lsun_churches256/config.yaml`` of
CompVis/latent-diffusion, ``configs/stable-diffusion/v1-inference.yaml`` of CompVis/stable-diffusion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CONVERSION_REVISION = 1
"""Raised when the conversion to these changes, so that folders of before are made anew."""


@dataclass(frozen=True)
class Family:
    """A kind of original checkpoint, and what it becomes.

    Attributes:
        name: as messages name it.
        denoiser: configuration of the UNet.
        first_stage: configuration of the autoencoder; without ``scaling_factor``, the checkpoint says it.
        scheduler: configuration of the scheduler, which holds the noise schedule.
        text_encoder: configuration of the CLIP text model; None where nothing is conditioned on text.
        heads: attention heads of every attention of the denoiser where they do not depend on the width, which
            UNet2DModel cannot be configured for; None where the configuration says it.
        denoiser_class: of diffusers.
        first_stage_class: of diffusers.
        pipeline: of diffusers; None where no pipeline of it would sample from the converted folder correctly.
    """

    name: str
    denoiser: Mapping[str, Any]
    first_stage: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    text_encoder: Mapping[str, Any] | None = None
    heads: int | None = None
    denoiser_class: Literal["UNet2DModel", "UNet2DConditionModel"] = "UNet2DModel"
    first_stage_class: Literal["VQModel", "AutoencoderKL"] = "AutoencoderKL"
    pipeline: str | None = None

    @property
    def shapes(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Shapes without the batch axis: of what the denoiser works on, and of the images."""
        side = int(self.denoiser["sample_size"])
        factor = 2 ** (len(self.first_stage["block_out_channels"]) - 1)
        channels, colours = int(self.denoiser["in_channels"]), int(self.first_stage["out_channels"])
        return (channels, side, side), (colours, factor * side, factor * side)


DDPM_CIFAR10: Mapping[str, Any] = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": (128, 256, 256, 256),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
}
"""The UNet of DDPM on CIFAR-10, as in google/ddpm-cifar10-32: 35.75 M parameters."""

_LDM_UNET: Mapping[str, Any] = {
    "act_fn": "silu",
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
}
_FIRST_STAGE: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
_KL_F8: Mapping[str, Any] = {
    **_FIRST_STAGE,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}
# The "linear" schedule of CompVis interpolates the square roots of the betas, which diffusers calls "scaled_linear".
_SCHEDULER: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
_DDIM: Mapping[str, Any] = {**_SCHEDULER, "_class_name": "DDIMScheduler", "clip_sample": False}

LDM_BEDROOMS = Family(
    name="LDM-4 of LSUN-Bedrooms (lsun_beds256)",
    denoiser={
        **_LDM_UNET,
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (224, 448, 672, 896),
        "attention_head_dim": 32,
        "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
        "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
    },
    first_stage={
        **_FIRST_STAGE,
        "sample_size": 256,
        "block_out_channels": (128, 256, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "latent_channels": 3,
        "num_vq_embeddings": 8192,
        "vq_embed_dim": 3,
        "scaling_factor": 1.0,
    },
    scheduler={**_DDIM, "beta_start": 0.0015, "beta_end": 0.0195},
    first_stage_class="VQModel",
    pipeline="LDMPipeline",
)
"""Pixels 3x256x256, latents 3x64x64, denoiser 274.06 M parameters, first stage VQ-f4 without scaling."""

LDM_CHURCHES = Family(
    name="LDM-8 of LSUN-Churches (lsun_churches256)",
    denoiser={
        **_LDM_UNET,
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (192, 384, 384, 768, 768),
        "attention_head_dim": 24,  # right at the first level only: see ``heads``
        "attn_norm_num_groups": 32,  # without it, a mid block with scale and shift has no norm before its attention
        "down_block_types": (*["AttnDownBlock2D"] * 4, "DownBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", *["AttnUpBlock2D"] * 4),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
    },
    first_stage={**_KL_F8, "sample_size": 256},
    scheduler={**_DDIM, "beta_start": 0.0015, "beta_end": 0.0155},
    heads=8,
)
"""Pixels 3x256x256, latents 4x32x32, denoiser 294.97 M parameters, first stage KL-f8; the factor that its latents are
scaled with is a buffer of the checkpoint."""

STABLE_DIFFUSION_V1 = Family(
    name="Stable Diffusion v1",
    denoiser={
        **_LDM_UNET,
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,  # the number of heads, in spite of its name
        "cross_attention_dim": 768,
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    },
    first_stage={**_KL_F8, "sample_size": 512, "scaling_factor": 0.18215},
    scheduler={
        **_SCHEDULER,
        "_class_name": "PNDMScheduler",
        "skip_prk_steps": True,
        "beta_start": 0.00085,
        "beta_end": 0.012,
    },
    text_encoder={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": 768,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    },
    denoiser_class="UNet2DConditionModel",
    pipeline="StableDiffusionPipeline",
)
"""Pixels 3x512x512, latents 4x64x64, denoiser 859.52 M parameters, first stage KL-f8, text of CLIP ViT-L/14."""
