"""The shipped models that read captions, loaded: ``tiny-sd`` with its conditioning, and ``clip-tiny``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qbench.workloads.text_conditioning import CLIPConditioning
from qbench.zoo.caption_tokenizer import load_tokenizer
from qbench.zoo.latent_networks import TinySD, clip_tiny
from qbench.zoo.networks import load_weights
from qbench.zoo.paths import weights_path

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from open_clip import CLIP


def load_tiny_sd(path: Path | None = None) -> tuple[UNet2DConditionModel, CLIPConditioning]:
    """Return denoiser and conditioning, float32, frozen, in evaluation mode.

    Args:
        path: A safetensors file; None means the shipped one.

    Raises:
        DataError: The file is missing or holds another network.
    """
    tokenizer = load_tokenizer()
    model = TinySD(len(tokenizer), tokenizer.eos_token_id)
    load_weights(model, weights_path("tiny-sd") if path is None else path)
    return model.unet, CLIPConditioning(tokenizer, model.text_encoder, at_once=None)


def load_clip_tiny(path: Path | None = None) -> CLIP:
    """Return the image-text model, float32, frozen, in evaluation mode.

    Args:
        path: A safetensors file; None means the shipped one.

    Raises:
        DataError: The file is missing or holds another network.
    """
    model = clip_tiny(len(load_tokenizer()))
    load_weights(model, weights_path("clip-tiny") if path is None else path)
    return model
