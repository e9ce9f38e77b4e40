"""UNetModel of CompVis/latent-diffusion (ldm/modules/diffusionmodules/openaimodel.py), as published models use it.

Written anew after the original's layout, to prove conversions against: the names of parameters are the original's.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps[:, None].float() * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class Upsample(nn.Module):
    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        if with_conv:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv(x) if hasattr(self, "conv") else x


class Downsample(nn.Module):
    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        # Symmetric padding here, unlike in the first stages.
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if with_conv else nn.AvgPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    def __init__(
        self, channels: int, width: int, out: int, groups: int, scale_shift: bool, up: bool = False, down: bool = False
    ) -> None:
        super().__init__()
        self.scale_shift, self.resampled = scale_shift, up or down
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels, eps=1e-5), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.resample: nn.Module = nn.Identity()
        if self.resampled:
            self.resample = Upsample(channels, False) if up else Downsample(channels, False)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * out if scale_shift else out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out, eps=1e-5), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        h = self.in_layers[2](self.resample(self.in_layers[1](self.in_layers[0](x))))
        x = self.resample(x)
        added = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = added.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + added)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """In the legacy order: split into heads before the split into queries, keys and values."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, eps=1e-5)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        batch, channels, *sides = x.shape
        x = x.reshape(batch, channels, -1)
        width = channels // self.heads
        q, k, v = self.qkv(self.norm(x)).reshape(batch * self.heads, 3 * width, -1).split(width, dim=1)
        scale = 1 / math.sqrt(math.sqrt(width))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(dim=-1)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, channels, -1)
        return (x + self.proj_out(h)).reshape(batch, channels, *sides)


class CrossAttention(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_width**-0.5
        inner = heads * head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(context_width, inner, bias=False)
        self.to_v = nn.Linear(context_width, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        attention = (q @ k.transpose(-1, -2) * self.scale).softmax(dim=-1)
        return self.to_out((attention @ v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * functional.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads, width // heads)
        self.ff = FeedForward(width)
        self.attn2 = CrossAttention(width, context_width, heads, width // heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, heads: int, context_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(channels, heads, context_width)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x))
        tokens = h.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return self.proj_out(tokens.transpose(1, 2).reshape(h.shape)) + x


class Stack(nn.Sequential):
    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        for layer in self:
            takes_all = isinstance(layer, ResBlock | AttentionBlock | SpatialTransformer)
            x = layer(x, embedding, context) if takes_all else layer(x)
        return x


class UNetModel(nn.Module):
    """Exactly one of ``num_heads`` and ``num_head_channels`` is given, as in the published configurations."""

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        channel_mult: Sequence[int],
        attention_resolutions: Sequence[int],
        num_res_blocks: int = 2,
        num_heads: int | None = None,
        num_head_channels: int | None = None,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        context_dim: int | None = None,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        width = 4 * model_channels

        def residual(channels: int, out: int, **way: bool) -> nn.Module:
            return ResBlock(channels, width, out, groups, use_scale_shift_norm, **way)

        def attention(channels: int) -> nn.Module:
            heads = num_heads or channels // (num_head_channels or channels)
            if context_dim is not None:
                return SpatialTransformer(channels, heads, context_dim, groups)
            return AttentionBlock(channels, heads, groups)

        self.time_embed = nn.Sequential(nn.Linear(model_channels, width), nn.SiLU(), nn.Linear(width, width))
        self.input_blocks = nn.ModuleList([Stack(nn.Conv2d(in_channels, model_channels, 3, padding=1))])
        kept, channels, factor = [model_channels], model_channels, 1
        for level, multiple in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers = [residual(channels, multiple * model_channels)]
                channels = multiple * model_channels
                if factor in attention_resolutions:
                    layers.append(attention(channels))
                self.input_blocks.append(Stack(*layers))
                kept.append(channels)
            if level != len(channel_mult) - 1:
                down = residual(channels, channels, down=True) if resblock_updown else Downsample(channels, True)
                self.input_blocks.append(Stack(down))
                kept.append(channels)
                factor *= 2
        self.middle_block = Stack(residual(channels, channels), attention(channels), residual(channels, channels))
        self.output_blocks = nn.ModuleList()
        for level, multiple in reversed(list(enumerate(channel_mult))):
            for index in range(num_res_blocks + 1):
                layers = [residual(channels + kept.pop(), multiple * model_channels)]
                channels = multiple * model_channels
                if factor in attention_resolutions:
                    layers.append(attention(channels))
                if level and index == num_res_blocks:
                    layers.append(
                        residual(channels, channels, up=True) if resblock_updown else Upsample(channels, True)
                    )
                    factor //= 2
                self.output_blocks.append(Stack(*layers))
        self.out = nn.Sequential(
            nn.GroupNorm(groups, channels, eps=1e-5), nn.SiLU(), nn.Conv2d(model_channels, in_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        embedding = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        skips = []
        for block in self.input_blocks:
            x = block(x, embedding, context)
            skips.append(x)
        x = self.middle_block(x, embedding, context)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding, context)
        return self.out(x)
