"""First stages of CompVis/latent-diffusion (ldm/modules/diffusionmodules/model.py, ldm/models/autoencoder.py).

Written anew after the original's layout, to prove conversions against: the names of parameters are the original's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResnetBlock(nn.Module):
    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out, eps=1e-6)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class AttnBlock(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))
        weight = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(dim=2)
        return x + self.proj_out((v @ weight.transpose(1, 2)).reshape(x.shape))


class Resample(nn.Module):
    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, padding=1 if up else 0, stride=1 if up else 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        # Padded to the right and below only.
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Half(nn.Module):
    """What encoder and decoder have in common."""

    def add_middle(self, channels: int, groups: int) -> None:
        self.mid = nn.Module()
        self.mid.block_1 = ResnetBlock(channels, channels, groups)
        self.mid.attn_1 = AttnBlock(channels, groups)
        self.mid.block_2 = ResnetBlock(channels, channels, groups)

    def add_end(self, channels: int, out: int, groups: int) -> None:
        self.norm_out = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, out, 3, padding=1)

    def middle(self, h: Tensor) -> Tensor:
        return self.mid.block_2(self.mid.attn_1(self.mid.block_1(h)))

    def end(self, h: Tensor) -> Tensor:
        return self.conv_out(functional.silu(self.norm_out(h)))


class Encoder(Half):
    def __init__(self, images: int, ch: int, ch_mult: Sequence[int], blocks: int, out: int, groups: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(images, ch, 3, padding=1)
        self.down = nn.ModuleList()
        channels = ch
        for level, multiple in enumerate(ch_mult):
            down = nn.Module()
            down.block = nn.ModuleList()
            for _ in range(blocks):
                down.block.append(ResnetBlock(channels, ch * multiple, groups))
                channels = ch * multiple
            if level != len(ch_mult) - 1:
                down.downsample = Resample(channels, up=False)
            self.down.append(down)
        self.add_middle(channels, groups)
        self.add_end(channels, out, groups)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for down in self.down:
            for block in down.block:
                h = block(h)
            if hasattr(down, "downsample"):
                h = down.downsample(h)
        return self.end(self.middle(h))


class Decoder(Half):
    def __init__(self, images: int, ch: int, ch_mult: Sequence[int], blocks: int, inputs: int, groups: int) -> None:
        super().__init__()
        channels = ch * ch_mult[-1]
        self.conv_in = nn.Conv2d(inputs, channels, 3, padding=1)
        self.add_middle(channels, groups)
        levels = []
        for level, multiple in reversed(list(enumerate(ch_mult))):
            up = nn.Module()
            up.block = nn.ModuleList()
            for _ in range(blocks + 1):
                up.block.append(ResnetBlock(channels, ch * multiple, groups))
                channels = ch * multiple
            if level != 0:
                up.upsample = Resample(channels, up=True)
            levels.insert(0, up)
        self.up = nn.ModuleList(levels)
        self.add_end(channels, images, groups)

    def forward(self, z: Tensor) -> Tensor:
        h = self.middle(self.conv_in(z))
        for up in reversed(self.up):
            for block in up.block:
                h = block(h)
            if hasattr(up, "upsample"):
                h = up.upsample(h)
        return self.end(h)


class VectorQuantizer(nn.Module):
    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)

    def forward(self, z: Tensor) -> Tensor:
        flat = z.permute(0, 2, 3, 1)
        distances = (flat[..., None, :] - self.embedding.weight).square().sum(-1)
        return self.embedding(distances.argmin(-1)).permute(0, 3, 1, 2)


class VQModel(nn.Module):
    """VQModelInterface: encodes to what is not yet quantized, decodes through the codebook."""

    def __init__(self, images: int, ch: int, ch_mult: Sequence[int], z: int, words: int, groups: int) -> None:
        super().__init__()
        self.encoder = Encoder(images, ch, ch_mult, 2, z, groups)
        self.decoder = Decoder(images, ch, ch_mult, 2, z, groups)
        self.quantize = VectorQuantizer(words, z)
        self.quant_conv = nn.Conv2d(z, z, 1)
        self.post_quant_conv = nn.Conv2d(z, z, 1)

    def encode(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(self.quantize(z)))


class AutoencoderKL(nn.Module):
    """Encodes to its posterior's mode."""

    def __init__(self, images: int, ch: int, ch_mult: Sequence[int], z: int, groups: int) -> None:
        super().__init__()
        self.encoder = Encoder(images, ch, ch_mult, 2, 2 * z, groups)
        self.decoder = Decoder(images, ch, ch_mult, 2, z, groups)
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1)
        self.post_quant_conv = nn.Conv2d(z, z, 1)

    def encode(self, x: Tensor) -> Tensor:
        return torch.chunk(self.quant_conv(self.encoder(x)), 2, dim=1)[0]

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))
