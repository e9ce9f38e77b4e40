"""Classifier-free guidance."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from qbench.diffusion.conditioning import UNCONDITIONAL, Conditioning
from qbench.diffusion.sampling import Denoise, StepContext
from qbench.diffusion.structures import Context
from qbench.errors import StageError


class ConditionalDenoise(Protocol):
    """A denoiser that is told what its rows are conditioned on."""

    def __call__(self, x: Tensor, step: StepContext, context: Context) -> Tensor:
        """Return the estimate at ``x`` [batch, *latent shape] at a step, in the same shape."""
        ...


def guided(denoise: ConditionalDenoise, conditional: Context, unconditional: Context, scale: float) -> Denoise:
    """Return a denoiser of a batch that is guided (Ho and Salimans, arXiv 2207.12598, equation 6).

    The estimate is ``unconditional + scale * (conditional - unconditional)``, as the code of latent diffusion counts
    the scale: 1 is the conditional estimate alone, which needs no guidance. One call of the denoiser holds both halves,
    the unconditional one first.

    Args:
        denoise: the denoiser.
        conditional: context of each row of the batch.
        unconditional: one row of context.
        scale: the scale.
    """
    both = {name: torch.cat([unconditional[name].expand_as(tensor), tensor]) for name, tensor in conditional.items()}

    def estimate(x: Tensor, step: StepContext) -> Tensor:
        without, with_caption = denoise(torch.cat([x, x]), step, both).chunk(2)
        return without + scale * (with_caption - without)

    return estimate


def context_of(conditioning: Conditioning, captions: Sequence[str], device: torch.device) -> Context:
    """Return one row of context for each caption on a device.

    Raises:
        StageError: the conditioning gives another number of rows, or values that are not finite.
    """
    context = {name: tensor.to(device) for name, tensor in conditioning(captions).items()}
    for name, tensor in context.items():
        if len(tensor) != len(captions):
            raise StageError(f"the conditioning gives {len(tensor)} rows of {name!r} for {len(captions)} captions")
        broken = ~tensor.reshape(len(tensor), -1).isfinite().all(dim=1)
        if bool(broken.any()):
            raise StageError(f"{name!r} of the caption {captions[int(broken.int().argmax())]!r} is not finite")
    return context


def unconditional_context(conditioning: Conditioning, device: torch.device) -> Context:
    """Return the one row of context that guidance moves away from."""
    return context_of(conditioning, [UNCONDITIONAL], device)
