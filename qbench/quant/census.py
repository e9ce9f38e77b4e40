"""What a denoiser consists of: weights and multiply-accumulates, layer by layer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION_BITS
from qbench.quant.layers import QuantLayer
from qbench.quant.model import QuantModel


@dataclass(frozen=True)
class Coverage:
    """How much of a denoiser is really quantized.

    Attributes:
        parameters: share of all parameters that are stored in fewer than 32 bits.
        macs: share of all multiply-accumulates, attention products included, of which every operand that the cell
            wants quantized is: the weight at W4A32, weight and input at W4A8. A product of two activations has no
            weight, so at W4A32 it counts as not quantized.
        left_out: layers that the method leaves in full precision against the cell's bits.
    """

    parameters: float
    macs: float
    left_out: tuple[str, ...]


def coverage(model: QuantModel, x: Tensor, timestep: Tensor) -> Coverage:
    """Count what is quantized in one call of the model.

    Args:
        model: with the grids that it samples with.
        x: one example input [1, *latent shape].
        timestep: [1].
    """
    macs = count_macs(model, x, timestep)
    left_out = model.left_out()
    quantized = [name for name in model.layers if name not in left_out and _has_low_bits(model.layers[name])]
    weights = sum(layer.weight.numel() for layer in model.layers.values() if layer.weight_grid is not None)
    total = sum(parameter.numel() for parameter in model.module.parameters())
    return Coverage(weights / total, sum(macs[name] for name in quantized) / sum(macs.values()), tuple(left_out))


def count_macs(model: QuantModel, x: Tensor, timestep: Tensor) -> dict[str, int]:
    """Return the multiply-accumulates of one call by layer, and those of attention under ``<name>.attention``.

    Args:
        model: the model; its state does not matter.
        x: one example input [1, *latent shape].
        timestep: [1].
    """
    macs: dict[str, int] = {}
    hooks = []

    def count_layer(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
            assert isinstance(layer, QuantLayer)
            calls = output.numel() // layer.weight.shape[0]
            macs[name] = macs.get(name, 0) + calls * layer.weight.numel()

        return hook

    def count_attention(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any], _: Any) -> None:
            hidden = inputs[0]
            context = keywords.get("encoder_hidden_states")
            queries = _tokens(hidden)
            keys = queries if context is None else _tokens(context)
            width = module.get_parameter("to_q.weight").shape[0]
            # q k^T and the product with v, over all heads together.
            key = f"{name}.attention"
            macs[key] = macs.get(key, 0) + 2 * queries * keys * width

        return hook

    for name, layer in model.layers.items():
        hooks.append(layer.register_forward_hook(count_layer(name)))
    for name, module in model.module.named_modules():
        if type(module).__name__ == "Attention":
            hooks.append(module.register_forward_hook(count_attention(name), with_kwargs=True))
    try:
        with torch.inference_mode():
            model(x, timestep)
    finally:
        for hook in hooks:
            hook.remove()
    return macs


def _has_low_bits(layer: QuantLayer) -> bool:
    return min(layer.bits.weights, layer.bits.activations) < FULL_PRECISION_BITS


def _tokens(hidden: Tensor) -> int:
    """Return the number of tokens of [batch, tokens, width] or [batch, width, height, width]."""
    return int(hidden.shape[1] if hidden.dim() == 3 else hidden.shape[2:].numel())
