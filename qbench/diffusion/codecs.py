"""First-stage codecs: between images and what the denoiser works on."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Codec(Protocol):
    """Maps images in [-1, 1] to latents and back, each image by itself and without chance."""

    def encode(self, images: Tensor) -> Tensor:
        """Map images [batch, channels, height, width] to latents [batch, *latent shape]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents [batch, *latent shape] to images [batch, channels, height, width]."""
        ...


class PixelUnshuffle:
    """Blocks of pixels as channels: an exact change of layout, so still pixel-space diffusion.

    Args:
        factor: side of a block; C x H x W pixels become C * factor**2 x H / factor x W / factor.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def encode(self, images: Tensor) -> Tensor:
        """Map images [batch, C, H, W] to latents."""
        return functional.pixel_unshuffle(images, self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents to images [batch, C, H, W]."""
        return functional.pixel_shuffle(latents, self.factor)


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to uint8 0..255; what lies outside is clamped, as every sampler's script does."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1
