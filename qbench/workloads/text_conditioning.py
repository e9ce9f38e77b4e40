"""Captions as what a denoiser attends to: CLIP's tokenizer and text model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

CAPTIONS_AT_ONCE = 64


class CLIPConditioning:
    """The last hidden state of a CLIP text model, as Stable Diffusion v1 is conditioned on it.

    Captions are padded and truncated to the tokenizer's length, and the padding is attended to, as in training.

    Args:
        tokenizer: a CLIPTokenizer of transformers.
        model: a CLIPTextModel of transformers.
        at_once: captions that the text model reads at a time; None for all that are given.
    """

    def __init__(self, tokenizer: Any, model: nn.Module, at_once: int | None = CAPTIONS_AT_ONCE) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.at_once = at_once

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Return the token numbers of captions, int64 [len(captions), tokens]."""
        found = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
        numbers: Tensor = found.input_ids
        return numbers

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return ``encoder_hidden_states`` [len(captions), tokens, width] on the text model's device."""
        device = next(self.model.parameters()).device
        parts = torch.split(self.tokens(captions).to(device), self.at_once or len(captions))
        return {"encoder_hidden_states": torch.cat([self.model(part, return_dict=True)[0] for part in parts])}
