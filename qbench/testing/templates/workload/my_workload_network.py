"""The network of my-workload; apart from it, so that it can be listed without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from qbench.diffusion.codecs import from_uint8
from torch import Tensor, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qbench.diffusion.codecs import Codec

MIXING = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


class Denoiser(nn.Module):
    """The expected noise in x_t if x_0 is one of some images: a softmax over them, in layers that can be quantized.

    E[x_0 | x_t] weighs each image by exp(-|x_t - sqrt(a) x_0|^2 / (2 (1 - a))).

    Args:
        images: uint8 [count, *image shape].
        codec: from images to latents.
        levels: the share a of the signal at every training timestep.
    """

    levels: Tensor
    energies: Tensor

    def __init__(self, images: NDArray[np.uint8], codec: Codec, levels: NDArray[np.float64]) -> None:
        super().__init__()
        latents = codec.encode(from_uint8(torch.from_numpy(images)))
        mixing = torch.tensor(MIXING).float() / 2  # its own inverse
        mixed = torch.einsum("oc,nchw->nohw", mixing, latents).flatten(1)
        channels = latents.shape[1]
        self.conv_in, self.conv_out = (nn.Conv2d(channels, channels, 1, bias=False) for _ in range(2))
        self.match = nn.Linear(mixed.shape[1], len(mixed), bias=False)
        self.mix = nn.Linear(len(mixed), mixed.shape[1], bias=False)
        for layer, weight in (
            (self.conv_in, mixing[:, :, None, None]),
            (self.match, mixed),
            (self.mix, mixed.T),
            (self.conv_out, mixing[:, :, None, None]),
        ):
            layer.weight = nn.Parameter(weight.clone())
        self.register_buffer("levels", torch.from_numpy(levels).float())
        self.register_buffer("energies", mixed.square().sum(1) / 2)
        self.eval()

    def forward(self, x: Tensor, timesteps: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Return the noise in x [batch, *latent shape], called as the UNets of diffusers are."""
        level = self.levels[timesteps].view(-1, 1)
        mixed = self.conv_in(x)
        likeness = (level.sqrt() * self.match(mixed.flatten(1)) - level * self.energies) / (1 - level)
        expected = self.conv_out(self.mix(likeness.softmax(1)).view_as(mixed))
        level = level.view(-1, 1, 1, 1)
        return ((x - level.sqrt() * expected) / (1 - level).sqrt(),)
