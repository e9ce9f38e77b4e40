"""What a denoiser consists of: weights and multiply-accumulates, layer by layer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION_BITS
from qbench.diffusion.structures import Context, Structure
from qbench.quant.attention import is_attention
from qbench.quant.layers import QuantLayer, named_layers
from qbench.quant.model import QuantModel


@dataclass(frozen=True)
class Count:
    """One layer, or one of the two products of an attention.

    Attributes:
        name: the layer, or ``<attention>.qk`` for the scores and ``<attention>.sv`` for the product with the values.
        operands: names of the activations that enter: the layer itself, or the two operands' taps.
        parameters: entries of the weight; 0 for a product of two activations.
        macs: multiply-accumulates in one call of the denoiser on one sample.
    """

    name: str
    operands: tuple[str, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class Coverage:
    """How much of a denoiser is really quantized.

    Attributes:
        parameters: share of all parameters that are stored in fewer than 32 bits.
        macs: share of all multiply-accumulates, attention products included, of which every operand that the cell
            wants quantized is: the weight at W4A32, weight and input at W4A8. A product of two activations has no
            weight, so at W4A32 it counts as not quantized.
        left_out: layers and attention operands that the method leaves in full precision against the cell's bits.
    """

    parameters: float
    macs: float
    left_out: tuple[str, ...]


def take_census(
    module: nn.Module, structure: Structure, x: Tensor, timesteps: Tensor, context: Context | None = None
) -> tuple[Count, ...]:
    """Count every convolution, linear layer and attention product of a denoiser that nobody has wrapped yet.

    Args:
        module: the denoiser as it was trained.
        structure: its layout.
        x: one example input [1, *latent shape].
        timesteps: [1].
        context: what it is conditioned on, one row.

    Raises:
        ValueError: the denoiser is wrapped already.
    """
    if any(isinstance(each, QuantLayer) for each in module.modules()):
        raise ValueError("a census is taken before the layers are wrapped")
    macs: dict[str, int] = {}
    hooks = []

    def count_layer(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
            weight = layer.get_parameter("weight")
            macs[name] = macs.get(name, 0) + output.numel() // weight.shape[0] * weight.numel()

        return hook

    def count_attention(name: str) -> Any:
        def hook(attention: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any], _: Any) -> None:
            hidden = inputs[0] if inputs else keywords["hidden_states"]
            context = inputs[1] if len(inputs) > 1 else keywords.get("encoder_hidden_states")
            queries = _tokens(hidden)
            keys = queries if context is None else _tokens(context)
            width = attention.get_parameter("to_q.weight").shape[0]
            macs[name] = macs.get(name, 0) + queries * keys * width

        return hook

    layers: dict[str, nn.Module] = {}
    for _, _, name, layer in named_layers(module):
        if layer not in layers.values():
            layers[name] = layer
    attentions = {name: each for name, each in module.named_modules() if is_attention(each)}
    for name, layer in layers.items():
        hooks.append(layer.register_forward_hook(count_layer(name)))
    for name, attention in attentions.items():
        hooks.append(attention.register_forward_hook(count_attention(name), with_kwargs=True))
    try:
        with torch.inference_mode():
            structure.call(module, x, timesteps, context or {})
    finally:
        for hook in hooks:
            hook.remove()
    counts = [
        Count(name, (name,), layer.get_parameter("weight").numel(), macs.get(name, 0)) for name, layer in layers.items()
    ]
    for name in attentions:
        counts.append(Count(f"{name}.qk", (f"{name}.q", f"{name}.k"), 0, macs.get(name, 0)))
        counts.append(Count(f"{name}.sv", (f"{name}.softmax", f"{name}.v"), 0, macs.get(name, 0)))
    return tuple(counts)


def coverage(model: QuantModel, census: Iterable[Count]) -> Coverage:
    """Return what is quantized of what a census counted.

    Args:
        model: with the grids that it samples with.
        census: of the same denoiser, taken before it was wrapped.
    """
    counts = list(census)
    left_out = set(model.left_out())
    covered = sum(count.macs for count in counts if _is_quantized(model, count, left_out))
    stored = sum(layer.weight.numel() for layer in model.layers.values() if layer.is_weight_quantized)
    total = sum(parameter.numel() for parameter in model.module.parameters())
    return Coverage(stored / total, covered / sum(count.macs for count in counts), tuple(model.left_out()))


def _is_quantized(model: QuantModel, count: Count, left_out: set[str]) -> bool:
    if any(operand in left_out for operand in count.operands):
        return False
    bits = [model.taps[operand].bits for operand in count.operands]
    if count.parameters:
        bits.append(model.layers[count.name].bits.weights)
        return min(bits) < FULL_PRECISION_BITS
    return max(bits) < FULL_PRECISION_BITS


def _tokens(hidden: Tensor) -> int:
    """Return the number of tokens of [batch, tokens, width] or [batch, width, height, width]."""
    return int(hidden.shape[1] if hidden.dim() == 3 else hidden.shape[2:].numel())
