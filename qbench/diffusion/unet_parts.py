"""Parts of a UNet that published methods treat apart: the path of the timestep, shortcuts, and downsamplers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.resnet import Downsample2D
from torch import Tensor, nn

from qbench.diffusion.structures import Segment, State


def time_path(unet: UNet2DModel | UNet2DConditionModel, segments: Sequence[Segment]) -> Segment:
    """Return the path of the timestep: its embedding and, for each residual block, the layer that takes it in.

    Whatever else is added to the embedding is in it too: class labels, and what SDXL knows of size and caption. The
    text that attention looks at is not.

    Source: the Temporal Information Block of TFMQ-DM (arXiv 2311.16503).

    Args:
        unet: as diffusers built it, its layers not yet wrapped.
        segments: of its forward, that of the embedding first.
    """
    embedding = segments[0]
    names = [name for name in _resnets(segments) if _part(unet, name).time_emb_proj is not None]

    def run(module: nn.Module, state: State) -> State:
        state = embedding.run(module, state)
        assert state.embedding is not None
        features = [_features(_part(module, name), state.embedding) for name in names]
        return replace(state, h=torch.cat(features, dim=1))

    projections = (f"{name}.time_emb_proj" for name in names)
    return Segment("time_path", "embedding", (*embedding.modules, *projections), run, reads=0)


def shortcuts(unet: UNet2DModel | UNet2DConditionModel, segments: Sequence[Segment]) -> tuple[str, ...]:
    """Return the names of the convolutions in the shortcuts of residual blocks, in execution order."""
    names = (name for name in _resnets(segments) if _part(unet, name).conv_shortcut is not None)
    return tuple(f"{name}.conv_shortcut" for name in names)


def downsamplers(unet: UNet2DModel | UNet2DConditionModel) -> tuple[str, ...]:
    """Return the names of the convolutions that do nothing but lower the resolution."""
    return tuple(
        f"{name}.{child}"
        for name, part in unet.named_modules()
        if type(part) is Downsample2D
        for child, layer in part.named_modules()  # one layer is held there under two names: the first one counts
        if isinstance(layer, nn.Conv2d)
    )


def _resnets(segments: Sequence[Segment]) -> list[str]:
    return [segment.name for segment in segments if segment.kind == "residual"]


def _part(module: nn.Module, name: str) -> Any:
    return module.get_submodule(name)


def _features(resnet: Any, embedding: Tensor) -> Tensor:
    """Return what a residual block makes of the embedding, in the operations of its forward."""
    features: Tensor = resnet.time_emb_proj(embedding if resnet.skip_time_act else resnet.nonlinearity(embedding))
    return features
