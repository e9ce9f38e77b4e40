"""Denoisers without weights, from configurations alone."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from qbench.diffusion.unet_structure import unet_structure
from qbench.workload import Skeleton
from qbench.workloads.configurations import Family
from qbench.workloads.loading import set_heads
from qbench.workloads.pipeline_folder import PipelineFolder


def skeleton_of_folder(folder: PipelineFolder) -> Skeleton:
    """Build the denoiser that a folder of diffusers holds; no weight is read."""
    text = None if folder.text_encoder is None else folder.text_encoder.config
    return _skeleton(folder.denoiser.class_name, folder.denoiser.config, folder.heads, text)


def skeleton_of_family(family: Family) -> Skeleton:
    """Build the denoiser of a kind of original checkpoint."""
    return _skeleton(family.denoiser_class, family.denoiser, family.heads, family.text_encoder)


def network_without_weights(class_name: str, config: Mapping[str, Any]) -> Any:
    """Build a network of diffusers on the meta device.

    Args:
        class_name: of diffusers.
        config: its configuration.
    """
    with torch.device("meta"):
        return getattr(diffusers, class_name).from_config(dict(config))


def _skeleton(
    class_name: str, config: Mapping[str, Any], heads: int | None, text: Mapping[str, Any] | None
) -> Skeleton:
    module = network_without_weights(class_name, config)
    if heads is not None:
        set_heads(module, heads)
    context = {} if text is None else {"encoder_hidden_states": (text["max_position_embeddings"], text["hidden_size"])}
    return Skeleton(module.eval(), unet_structure(module), context)
