"""Attention whose four operands can be observed and quantized."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from qbench.errors import StageError
from qbench.quant.layers import Clock, Tap

_STOCK = ("AttnProcessor", "AttnProcessor2_0")


@dataclass(frozen=True)
class AttentionTaps:
    """The operands of attention's two products.

    Attributes:
        q: queries [batch, heads, tokens, head width], before they are scaled.
        k: keys, likewise.
        softmax: attention probabilities [batch, heads, queries, keys], 0 to 1.
        v: values, as the keys.
    """

    q: Tap
    k: Tap
    softmax: Tap
    v: Tap

    @property
    def are_idle(self) -> bool:
        """Whether none of them does anything."""
        return self.q.is_idle and self.k.is_idle and self.softmax.is_idle and self.v.is_idle

    def by_name(self, attention: str) -> dict[str, Tap]:
        """Return them under ``<attention>.q`` and so on."""
        return {f"{attention}.{name}": getattr(self, name) for name in ("q", "k", "softmax", "v")}


class TappedProcessor:
    """Computes what the stock processor of diffusers' Attention computes, with taps on the operands.

    As long as the taps are idle the stock processor itself is called.

    Args:
        stock: the processor that it takes the place of.
        taps: the operands' taps.
    """

    def __init__(self, stock: Callable[..., Tensor], taps: AttentionTaps) -> None:
        self._stock = stock
        self._taps = taps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return attention of ``hidden_states``, [batch, tokens, width] or [batch, width, height, width]."""
        if self._taps.are_idle:
            return self._stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if attention_mask is not None or attn.spatial_norm is not None:
            raise StageError("attention with a mask or a spatial norm cannot be quantized")
        x = hidden_states
        if x.dim() == 4:
            x = x.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        q, k, v = (
            project(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project, tokens in ((attn.to_q, x), (attn.to_k, context), (attn.to_v, context))
        )
        x = self._attend(attn, q, k, v).transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            x = layer(x)
        if hidden_states.dim() == 4:
            x = x.transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            x = x + hidden_states
        return x / attn.rescale_output_factor  # type: ignore[no-any-return]

    def _attend(self, attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if attn.norm_q is not None:
            q = attn.norm_q(q)
        if attn.norm_k is not None:
            k = attn.norm_k(k)
        scores = self._taps.q(q) @ self._taps.k(k).transpose(-1, -2) * attn.scale
        return self._taps.softmax(scores.softmax(dim=-1)) @ self._taps.v(v)


def tap_attention(name: str, attention: Any, bits: int, softmax_bits: int, clock: Clock) -> AttentionTaps:
    """Put taps on the operands of one of diffusers' Attention modules, in place.

    Args:
        name: of the module, for messages.
        attention: the module.
        bits: of queries, keys and values.
        softmax_bits: of the probabilities.
        clock: of the model.

    Raises:
        StageError: it is of a derived type, or its processor is not one that is known.
    """
    stock = attention.processor
    if type(attention).__name__ != "Attention":
        raise StageError(
            f"the attention {name!r} is a {type(attention).__name__}, which qbench does not know how to quantize"
        )
    if type(stock).__name__ not in _STOCK:
        raise StageError(
            f"the attention {name!r} computes with {type(stock).__name__}, which qbench does not know how to quantize"
        )
    taps = AttentionTaps(Tap(bits, clock), Tap(bits, clock), Tap(softmax_bits, clock), Tap(bits, clock))
    attention.set_processor(TappedProcessor(stock, taps))
    return taps


def is_attention(module: nn.Module) -> bool:
    """Whether a module is one of diffusers' Attention modules, or derived from it."""
    return any(base.__name__ == "Attention" for base in type(module).__mro__)
