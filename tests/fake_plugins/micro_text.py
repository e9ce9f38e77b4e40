"""A workload with captions: a tiny UNet with cross-attention, and words that are vectors.

It is no entry point of ``microplugins``; a test that needs it installs one that names ``micro_text:MicroText``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from micro_plugins import Micro

from qbench.workload import LoadedWorkload

if TYPE_CHECKING:
    import torch

    from qbench.diffusion.structures import Context

TOKENS, WIDTH = 3, 6
CAPTIONS = ("a red coat", "two shoes", "a bag")


class Words:
    """Each word is a vector of its own; what is left of the tokens is zero."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, captions: Sequence[str]) -> Context:
        import torch

        self.asked.append(list(captions))
        rows = torch.zeros(len(captions), TOKENS, WIDTH)
        for row, caption in zip(rows, captions, strict=True):
            for token, word in zip(row, caption.split(), strict=False):
                token.copy_(torch.tensor(list(sha256(word.encode()).digest()[:WIDTH])) / 64 - 2)
        return {"encoder_hidden_states": rows}


class MicroText(Micro):
    has_captions = True
    title = "a UNet with cross-attention and fixed random weights"

    def weights(self) -> Mapping[str, str]:
        return {"micro-text": sha256(b"micro-text").hexdigest()}

    def load(self) -> LoadedWorkload:
        from micro_network import Identity

        from qbench.diffusion.unet_structure import unet_structure

        unet = _unet()
        return LoadedWorkload(unet, unet_structure(unet), Identity(), Words())

    def captions(self, indices: range) -> Sequence[str]:
        return [CAPTIONS[index % len(CAPTIONS)] for index in indices]

    def calibration_captions(self, indices: range) -> Sequence[str]:
        return [f"calibration {index % 2}" for index in indices]


def _unet() -> torch.nn.Module:
    import torch
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return UNet2DConditionModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        )
