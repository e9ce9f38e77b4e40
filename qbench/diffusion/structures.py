"""What the core must know of a denoiser's architecture beyond its modules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

Context = Mapping[str, Tensor]
"""What a denoiser is conditioned on, row by row: ``encoder_hidden_states`` [batch, tokens, width], ``class_labels``
[batch], and SDXL's ``text_embeds`` [batch, width] and ``time_ids`` [batch, 6]."""

SegmentKind = Literal["embedding", "convolution", "residual", "attention"]


@dataclass(frozen=True)
class State:
    """What flows from segment to segment.

    Attributes:
        h: the running tensor, [batch, channels, height, width], within a transformer [batch, tokens, width]; the
            denoiser's input before the first segment, its output behind the last.
        timesteps: [batch].
        embedding: of the timestep and whatever is added to it, [batch, width]; None until it is computed.
        skips: what a later segment will take up again, the next one last.
        context: what the denoiser is conditioned on.
    """

    h: Tensor
    timesteps: Tensor
    embedding: Tensor | None = None
    skips: tuple[Tensor, ...] = ()
    context: Context = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """One step of a denoiser's forward.

    Attributes:
        name: the module it is about, such as ``down_blocks.0.resnets.1``.
        kind: what it is: ``embedding`` changes only the state's embedding, the others ``h`` and the skips;
            ``residual`` and ``attention`` are the blocks that block reconstruction works on.
        modules: the names of all modules that it runs, within the denoiser; no layer is in two segments.
        run: takes the denoiser and the state before it and returns the state behind it, in the forward's own
            operations, to the bit. It finds modules by name at each call, as they may have been replaced.
        reads: how many of the skips ``run`` looks at, counted from the last; None for all.
    """

    name: str
    kind: SegmentKind
    modules: tuple[str, ...]
    run: Callable[[nn.Module, State], State]
    reads: int | None = None


def call_unet(module: nn.Module, x: Tensor, timesteps: Tensor, context: Context) -> Tensor:
    """Call a denoiser as diffusers' UNets are called.

    Args:
        module: the denoiser.
        x: [batch, *latent shape].
        timesteps: [batch].
        context: what it is conditioned on.
    """
    keywords = dict(context)
    added = {name: keywords.pop(name) for name in ("text_embeds", "time_ids") if name in keywords}
    extra = {"added_cond_kwargs": added} if added else {}
    estimate: Tensor = module(x, timesteps, **keywords, **extra, return_dict=False)[0]
    return estimate


@dataclass(frozen=True)
class Structure:
    """The layout of one denoiser.

    Attributes:
        boundary_layers: names of the first and the last layer on the path of the image, which ``boundary_bits``
            is about. The embedding of the timestep is not on that path.
        segments: in execution order; their composition is the forward. Empty where they are not known: what works
            block by block then refuses the denoiser.
        splits: for each convolution in the shortcut of a concatenation, by name, the channel where the second half
            begins.
        time_path: all that a timestep passes through before it meets the image, cut out across the segments: the
            embedding and each layer that hands it to a block. ``run`` puts what these layers give, side by side, in
            ``h`` [batch, width]; ``modules`` are in execution order, and in those of other segments as well. None
            where it is not known.
        shortcuts: names of the convolutions in the shortcuts of residual blocks.
        downsamplers: names of the convolutions that do nothing but lower the resolution.
        call: the forward.
    """

    boundary_layers: tuple[str, str]
    segments: tuple[Segment, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    time_path: Segment | None = None
    shortcuts: tuple[str, ...] = ()
    downsamplers: tuple[str, ...] = ()
    call: Callable[[nn.Module, Tensor, Tensor, Context], Tensor] = call_unet

    def compose(self, module: nn.Module, state: State) -> Tensor:
        """Return the output of a denoiser, computed segment by segment.

        Args:
            module: the denoiser.
            state: with input, timesteps and context.
        """
        for segment in self.segments:
            state = segment.run(module, state)
        return state.h


DIFFUSERS_UNET = Structure(boundary_layers=("conv_in", "conv_out"))
