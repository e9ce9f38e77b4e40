"""The network of the workload ``micro``; apart, because it needs torch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class MicroDenoiser(nn.Module):
    """Three convolutions and an embedding of the timestep, called as diffusers' models are.

    Args:
        gain: factor on all weights.
        pause: called before each evaluation.
    """

    def __init__(self, gain: float, pause: Callable[[str], None]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(1, 4, 3, padding=1)
        self.time = nn.Linear(2, 4)
        self.conv_mid = nn.Conv2d(4, 4, 3, padding=1)
        self.conv_out = nn.Conv2d(4, 1, 3, padding=1)
        self._pause = pause
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = gain * 0.3 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        self._pause(f"denoiser-{len(x)}")
        angle = timestep.to(x.dtype)[:, None] / 40
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        hidden = torch.tanh(self.conv_in(x) + time[:, :, None, None])
        hidden = hidden + torch.tanh(self.conv_mid(hidden))
        return (self.conv_out(hidden),)


class Identity:
    """Latents are images."""

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents
