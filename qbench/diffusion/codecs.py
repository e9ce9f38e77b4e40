"""First-stage codecs: between images and what the denoiser works on."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

PIXELS_AT_ONCE = 1 << 18
"""A first stage sees so many pixels of images at a time, at least one image: 4 of 256x256. Its memory is a few hundred
times their size."""


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


class Identity:
    """No first stage: the denoiser works on pixels."""

    def encode(self, images: Tensor) -> Tensor:
        """Return the images themselves."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """Return the latents themselves."""
        return latents


class DiffusersFirstStage:
    """The first stage of a latent diffusion model: AutoencoderKL or VQModel of diffusers.

    Nothing is drawn: AutoencoderKL encodes to its posterior's mode, and VQModel decodes through its codebook. Latents
    are z * scaling_factor, or (z - shift_factor) * scaling_factor where its configuration has a shift (Rombach et al.,
    CVPR 2022, appendix D.1).

    Args:
        model: in evaluation mode; it moves to where the images are.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.scale = float(model.config.scaling_factor)
        self.shift = float(getattr(model.config, "shift_factor", None) or 0.0)
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Map images [batch, C, H, W] to latents [batch, c, H / factor, W / factor]."""
        return self._in_slices(images, images[0, 0].numel(), self._encode)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Map latents [batch, c, h, w] to images [batch, C, factor * h, factor * w]."""
        return self._in_slices(latents, latents[0, 0].numel() * self.factor**2, self._decode)

    def _in_slices(self, batch: Tensor, pixels: int, run: Callable[[Tensor], Tensor]) -> Tensor:
        self.model.to(batch.device)
        return torch.cat([run(part) for part in torch.split(batch, max(1, PIXELS_AT_ONCE // pixels))])

    def _encode(self, images: Tensor) -> Tensor:
        found = self.model.encode(images)
        z: Tensor = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return (z - self.shift) * self.scale

    def _decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self.model.decode(latents / self.scale + self.shift).sample
        return images


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to uint8 0..255; what lies outside is clamped, as every sampler's script does."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1
