"""From captions to what a denoiser is conditioned on."""

from collections.abc import Sequence
from typing import Protocol

from qbench.diffusion.structures import Context

UNCONDITIONAL = ""
"""The caption that says nothing: guidance moves away from what the denoiser makes of it."""


class Conditioning(Protocol):
    """Maps captions to a denoiser's context, each by itself and without chance.

    It is frozen as the first stage is: no method quantizes it.
    """

    def __call__(self, captions: Sequence[str]) -> Context:
        """Return one row of context for each caption, such as ``encoder_hidden_states`` [captions, tokens, width]."""
        ...
