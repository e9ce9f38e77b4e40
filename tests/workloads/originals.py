"""The published latent diffusion models at reduced width: original networks with random weights, and checkpoints."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import compvis_first_stage
import torch
from clip_text import TextModel
from compvis_unet import UNetModel
from torch import Tensor, nn

from qbench.workloads.configurations import LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1, Family

GROUPS = 4
SCALE_FACTOR = 0.22765929
WORDS = 49408
NAMES = ("bedrooms", "churches", "stable-diffusion")


@dataclass(frozen=True)
class Original:
    """A model as its authors published it, reduced.

    Attributes:
        family: the real one with these widths.
        unet, first_stage, text: networks with the original's names.
        scale_factor: that latents are multiplied with.
    """

    family: Family
    unet: UNetModel
    first_stage: Any
    text: TextModel | None
    scale_factor: float

    def state(self, ema: bool = True) -> dict[str, Tensor]:
        """The tensors of its checkpoint; with averages, the weights under the plain names are others."""
        named = {f"model.diffusion_model.{name}": tensor for name, tensor in self.unet.state_dict().items()}
        state = {"betas": torch.linspace(0.001, 0.02, 1000, dtype=torch.float64), **named}
        if ema:
            averages = {f"model_ema.{name[6:].replace('.', '')}": tensor for name, tensor in named.items()}
            state |= {name: tensor + 0.1 for name, tensor in named.items()} | averages
            state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
        state |= {f"first_stage_model.{name}": tensor for name, tensor in self.first_stage.state_dict().items()}
        state["first_stage_model.loss.logvar"] = torch.zeros(())
        if self.text is not None:
            state |= {f"cond_stage_model.transformer.{name}": each for name, each in self.text.state_dict().items()}
        if self.family.heads is not None:  # the churches' factor is a buffer
            state["scale_factor"] = torch.tensor(self.scale_factor)
        return state

    def write(self, path: Path, ema: bool = True, **others: Any) -> Path:
        """Write its checkpoint as Lightning does."""
        torch.save({"epoch": 3, "state_dict": self.state(ema), **others}, path)
        return path


def randomized(network: nn.Module) -> Any:
    """Norms and biases are drawn as well, as fresh ones would hide a mistake; attention is made to look closely."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape)
        if any(part in name for part in ("qkv", ".q.", ".k.", "to_q", "to_k", "q_proj", "k_proj")):
            parameter.data *= 4
    return network.eval().requires_grad_(False)


def reduced(family: Family, denoiser: Mapping[str, Any], first_stage: Mapping[str, Any], **others: Any) -> Family:
    """A family with other widths."""
    common = {"norm_num_groups": GROUPS}
    if "attn_norm_num_groups" in family.denoiser:
        common["attn_norm_num_groups"] = GROUPS
    return replace(
        family,
        denoiser={**family.denoiser, **common, **denoiser},
        first_stage={**family.first_stage, "norm_num_groups": GROUPS, **first_stage},
        **others,
    )


@functools.cache
def original(name: str) -> Original:
    """Build one of NAMES."""
    torch.manual_seed(NAMES.index(name))
    if name == "bedrooms":
        family = reduced(
            LDM_BEDROOMS,
            {"block_out_channels": (8, 16, 24, 32), "attention_head_dim": 4, "sample_size": 16},
            {"block_out_channels": (8, 16, 32), "num_vq_embeddings": 64},
        )
        unet = UNetModel(3, 8, (1, 2, 3, 4), (8, 4, 2), num_head_channels=4, groups=GROUPS)
        stage: nn.Module = compvis_first_stage.VQModel(3, 8, (1, 2, 4), 3, 64, GROUPS)
        return Original(family, randomized(unet), randomized(stage), None, 1.0)
    if name == "churches":
        family = reduced(
            LDM_CHURCHES,
            {"block_out_channels": (16, 32, 32, 64, 64), "attention_head_dim": 2, "sample_size": 32},
            {"block_out_channels": (8, 16, 32, 32)},
        )
        options: dict[str, Any] = {"use_scale_shift_norm": True, "resblock_updown": True}
        unet = UNetModel(4, 16, (1, 2, 2, 4, 4), (1, 2, 4, 8), num_heads=8, groups=GROUPS, **options)
        stage = compvis_first_stage.AutoencoderKL(3, 8, (1, 2, 4, 4), 4, GROUPS)
        return Original(family, randomized(unet), randomized(stage), None, SCALE_FACTOR)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    family = reduced(
        STABLE_DIFFUSION_V1,
        {
            "block_out_channels": (8, 16, 32, 32),
            "attention_head_dim": 4,
            "cross_attention_dim": 16,
            "sample_size": 16,
        },
        {"block_out_channels": (8, 16, 32, 32)},
        text_encoder={**(STABLE_DIFFUSION_V1.text_encoder or {}), **text},
    )
    unet = UNetModel(4, 8, (1, 2, 4, 4), (4, 2, 1), num_heads=4, context_dim=16, groups=GROUPS)
    stage = compvis_first_stage.AutoencoderKL(3, 8, (1, 2, 4, 4), 4, GROUPS)
    words = TextModel(WORDS, 77, 16, 32, 2, 4)
    return Original(family, randomized(unet), randomized(stage), randomized(words), 0.18215)
