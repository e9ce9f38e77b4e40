"""The forward of diffusers' UNets, taken apart into segments."""

from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets import unet_2d_blocks as blocks
from torch import nn

from qbench.diffusion.shortcut_splits import shortcut_splits
from qbench.diffusion.structures import Segment, SegmentKind, State, Structure
from qbench.diffusion.unet_options import check_options
from qbench.diffusion.unet_parts import downsamplers, shortcuts, time_path
from qbench.errors import StageError

Call = Callable[[Any, State], Any]
"""How a forward calls one of its modules: from the module and the state to the new ``h``."""


def unet_structure(module: nn.Module) -> Structure:
    """Lay out a UNet of diffusers.

    The segments repeat the forward of UNet2DModel and UNet2DConditionModel in the configurations of the DDPM, LDM,
    Stable Diffusion and SDXL pipelines; every other configuration is refused. What is switched on in the module
    afterwards, FreeU for example, they do not see.

    Args:
        module: the denoiser, as diffusers built it: its layers not yet wrapped.

    Raises:
        StageError: the segments would not compose to the module's forward.
    """
    _check_class("the denoiser", module, UNet2DModel, UNet2DConditionModel)
    check_options(module)
    segments = tuple(_unet(module))
    _check_coverage(module, segments)
    return Structure(
        ("conv_in", "conv_out"),
        segments,
        splits=shortcut_splits(module),
        time_path=time_path(module, segments),
        shortcuts=shortcuts(module, segments),
        downsamplers=downsamplers(module),
    )


def _unet(unet: UNet2DModel | UNet2DConditionModel) -> Iterator[Segment]:
    conditional = type(unet) is UNet2DConditionModel
    embedders = ("time_embedding", "class_embedding", "add_embedding")
    present = tuple(name for name in embedders if getattr(unet, name, None) is not None)
    yield Segment("time_embedding", "embedding", present, _embed_with_text if conditional else _embed)
    yield _keeping(Segment("conv_in", "convolution", ("conv_in",), _enter))
    for index, block in enumerate(unet.down_blocks):
        yield from _down_block(f"down_blocks.{index}", block)
    if unet.mid_block is not None:
        yield from _mid_block("mid_block", unet.mid_block)
    for index, block in enumerate(unet.up_blocks):
        yield from _up_block(f"up_blocks.{index}", block, 2**unet.num_upsamplers if conditional else 1)
    yield Segment("conv_out", "convolution", ("conv_norm_out", "conv_out"), _leave)


def _embed(module: UNet2DModel, state: State) -> State:
    _check_context(state, {"class_labels"} if module.class_embedding is not None else set())
    timesteps = module.time_proj(state.timesteps.expand(len(state.h)))
    embedding = module.time_embedding(timesteps.to(dtype=module.dtype))
    if module.class_embedding is not None:
        labels = state.context["class_labels"]
        if module.config.class_embed_type == "timestep":
            labels = module.time_proj(labels)
        embedding = embedding + module.class_embedding(labels).to(dtype=module.dtype)
    return replace(state, embedding=embedding)


def _embed_with_text(module: UNet2DConditionModel, state: State) -> State:
    _check_context(state, {"encoder_hidden_states", "class_labels", "text_embeds", "time_ids"})
    embedding = module.time_embedding(module.get_time_embed(sample=state.h, timestep=state.timesteps))
    labels = module.get_class_embed(sample=state.h, class_labels=state.context.get("class_labels"))
    if labels is not None:
        embedding = embedding + labels
    text = state.context["encoder_hidden_states"]
    added = module.get_aug_embed(emb=embedding, encoder_hidden_states=text, added_cond_kwargs=state.context)
    if added is not None:
        embedding = embedding + added
    return replace(state, embedding=embedding)


def _enter(module: UNet2DModel | UNet2DConditionModel, state: State) -> State:
    h = 2 * state.h - 1.0 if module.config.center_input_sample else state.h
    return replace(state, h=module.conv_in(h))


def _leave(module: UNet2DModel | UNet2DConditionModel, state: State) -> State:
    return replace(state, h=module.conv_out(module.conv_act(module.conv_norm_out(state.h))))


def _down_block(name: str, block: Any) -> Iterator[Segment]:
    supported = blocks.AttnDownBlock2D, blocks.CrossAttnDownBlock2D, blocks.DownBlock2D, blocks.ResnetDownsampleBlock2D
    _check_class(name, block, *supported)
    for layer in _layers(name, block):
        yield from layer[:-1]
        yield _keeping(layer[-1])
    downsamplers = [_downsampler(f"{name}.downsamplers.{i}", part) for i, part in enumerate(block.downsamplers or ())]
    yield from downsamplers[:-1]
    yield from map(_keeping, downsamplers[-1:])


def _mid_block(name: str, block: Any) -> Iterator[Segment]:
    _check_class(name, block, blocks.UNetMidBlock2D, blocks.UNetMidBlock2DCrossAttn)
    for layer in _layers(name, block, _attend_with_embedding):
        yield from layer


def _up_block(name: str, block: Any, factor: int) -> Iterator[Segment]:
    sized = blocks.CrossAttnUpBlock2D, blocks.UpBlock2D
    _check_class(name, block, *sized, blocks.AttnUpBlock2D, blocks.ResnetUpsampleBlock2D)
    if any(getattr(block, scale, None) is not None for scale in ("s1", "s2", "b1", "b2")):
        raise StageError(f"{name} has FreeU switched on, which segments do not follow: call disable_freeu() before")
    for layer in _layers(name, block):
        yield _joining(layer[0])
        yield from layer[1:]
    for index, part in enumerate(block.upsamplers or ()):
        yield _upsampler(f"{name}.upsamplers.{index}", part, factor if type(block) in sized else 1)


def _attend(attention: Any, state: State) -> Any:
    return attention(state.h)


def _attend_with_embedding(attention: Any, state: State) -> Any:
    return attention(state.h, temb=state.embedding)


def _layers(name: str, block: Any, attend: Call = _attend) -> Iterator[list[Segment]]:
    """Each resnet of a block together with the attention behind it, if there is one."""
    attentions = dict(enumerate(getattr(block, "attentions", ())))
    for index, resnet in enumerate(block.resnets):
        layer = [_resnet(f"{name}.resnets.{index}", resnet)]
        attention = attentions.get(index)
        if type(attention) is Transformer2DModel:
            layer += _transformer(f"{name}.attentions.{index}", attention)
        elif attention is not None:
            layer.append(_calling(f"{name}.attentions.{index}", "attention", attention, Attention, attend))
        yield layer


def _resnet(name: str, resnet: nn.Module) -> Segment:
    return _calling(name, "residual", resnet, ResnetBlock2D, lambda part, state: part(state.h, state.embedding))


def _downsampler(name: str, sampler: nn.Module) -> Segment:
    if type(sampler) is ResnetBlock2D:
        return _resnet(name, sampler)
    return _calling(name, "convolution", sampler, Downsample2D, lambda part, state: part(state.h))


def _upsampler(name: str, sampler: nn.Module, factor: int) -> Segment:
    if type(sampler) is ResnetBlock2D:
        return _resnet(name, sampler)

    def upsample(part: Any, state: State) -> Any:
        # The oldest skip, conv_in's, has the size of the input. Where that is no multiple of the overall factor, the
        # forward upsamples to the size of the next skip, which twice the size would miss.
        divisible = all(side % factor == 0 for side in state.skips[0].shape[2:])
        return part(state.h, None if divisible else state.skips[-1].shape[2:])

    return replace(_calling(name, "convolution", sampler, Upsample2D, upsample), reads=None)


def _transformer(name: str, transformer: Any) -> Iterator[Segment]:
    _check_class(name, transformer, Transformer2DModel)

    def enter(module: nn.Module, state: State) -> State:
        part: Any = module.get_submodule(name)
        tokens, _ = part._operate_on_continuous_inputs(state.h)
        return replace(state, h=tokens, skips=(*state.skips, state.h))

    def leave(module: nn.Module, state: State) -> State:
        part: Any = module.get_submodule(name)
        *skips, residual = state.skips
        batch, _, height, width = residual.shape
        h = part._get_output_for_continuous_inputs(state.h, residual, batch, height, width, inner_dim=-1)
        return replace(state, h=h, skips=tuple(skips))

    def attend(part: Any, state: State) -> Any:
        return part(state.h, encoder_hidden_states=state.context["encoder_hidden_states"])

    yield Segment(f"{name}.proj_in", "convolution", (f"{name}.norm", f"{name}.proj_in"), enter)
    for index, part in enumerate(transformer.transformer_blocks):
        yield _calling(f"{name}.transformer_blocks.{index}", "attention", part, BasicTransformerBlock, attend)
    yield Segment(f"{name}.proj_out", "convolution", (f"{name}.proj_out",), leave)


def _calling(name: str, kind: SegmentKind, part: nn.Module, supported: type[nn.Module], call: Call) -> Segment:
    """The segment that is one call of the module it is named after, which sees no skips."""
    _check_class(name, part, supported)

    def run(module: nn.Module, state: State) -> State:
        return replace(state, h=call(module.get_submodule(name), state))

    return Segment(name, kind, (name,), run, reads=0)


def _keeping(segment: Segment) -> Segment:
    """The same segment, whose result is also kept for the up path."""

    def run(module: nn.Module, state: State) -> State:
        state = segment.run(module, state)
        return replace(state, skips=(*state.skips, state.h))

    return replace(segment, run=run)


def _joining(segment: Segment) -> Segment:
    """The same segment on the concatenation of what comes from below and the next skip."""

    def run(module: nn.Module, state: State) -> State:
        *skips, skip = state.skips
        return segment.run(module, replace(state, h=torch.cat([state.h, skip], dim=1), skips=tuple(skips)))

    return replace(segment, run=run, reads=1)


def _check_class(name: str, module: nn.Module, *supported: type[nn.Module]) -> None:
    """Refuse what is of another class, be it derived, or has had its forward replaced."""
    if type(module) not in supported:
        known = " or ".join(sorted(each.__name__ for each in supported))
        raise StageError(f"{name} is a {type(module).__name__}; only as {known} can it be taken apart into segments")
    if "forward" in vars(module):
        raise StageError(f"the forward of {name} has been replaced, so it cannot be taken apart into segments")


def _check_context(state: State, known: Set[str]) -> None:
    unknown = ", ".join(sorted(state.context.keys() - known))
    if unknown:
        raise StageError(f"the segments of this denoiser do not take {unknown} as conditioning")


def _check_coverage(unet: nn.Module, segments: tuple[Segment, ...]) -> None:
    """Refuse what has parameters that no segment runs."""
    prefixes = tuple(f"{name}." for segment in segments for name in segment.modules)
    for parameter, _ in unet.named_parameters():
        if not parameter.startswith(prefixes):
            raise StageError(f"{parameter} is a parameter that no segment uses, so they cannot replace the forward")
