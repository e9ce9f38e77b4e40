from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.errors import StageError
from qbench.quant import LayerBits, QuantLayer, channel_maxima, input_factors, smoothing_factors
from qbench.quant.smoothing import ChannelMaxima

Make = Callable[..., Any]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uneven(*shape: int, axis: int = 1, seed: int = 0) -> Tensor:
    """Values whose channels differ by orders of magnitude."""
    sizes = (2 * random(shape[axis], seed=seed + 50)).exp()
    return random(*shape, seed=seed) * sizes.view(-1, *(1,) * (len(shape) - axis - 1))


def maxima(x: Tensor, axis: int = 1) -> Tensor:
    return x.abs().movedim(axis, 0).flatten(1).amax(1)


CASES = [
    pytest.param((9, 6), (5, 6), functional.linear, id="linear"),
    pytest.param((3, 6, 5, 5), (5, 6, 3, 3), functional.conv2d, id="convolution"),
    pytest.param((3, 6, 9), (5, 6, 3), functional.conv1d, id="1-D convolution"),
]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("inputs", "weights", "operation"), CASES)
def test_the_product_of_what_is_smoothed_is_the_same(
    inputs: tuple[int, ...], weights: tuple[int, ...], operation: Callable[..., Tensor], alpha: float
) -> None:
    x, weight = uneven(*inputs), uneven(*weights, seed=1)
    factor = smoothing_factors(maxima(x), weight, alpha)
    assert (factor.dtype, factor.shape) == (torch.float32, (6, *(1,) * (weight.dim() - 2)))
    product = operation(x, weight)
    torch.testing.assert_close(operation(x / factor, weight * factor), product, rtol=1e-5, atol=1e-5 * product.std())


@pytest.mark.parametrize(("inputs", "weights", "operation"), CASES)
def test_half_makes_the_maxima_of_input_and_weight_equal_in_each_channel(
    inputs: tuple[int, ...], weights: tuple[int, ...], operation: Callable[..., Tensor]
) -> None:
    x, weight = uneven(*inputs), uneven(*weights, seed=1)
    factor = smoothing_factors(maxima(x), weight, 0.5)
    torch.testing.assert_close(maxima(x / factor), maxima(weight * factor))
    assert float(maxima(x).max() / maxima(x).min()) > 10


@pytest.mark.parametrize(("inputs", "weights", "operation"), CASES)
def test_at_its_limits_one_of_them_becomes_even(
    inputs: tuple[int, ...], weights: tuple[int, ...], operation: Callable[..., Tensor]
) -> None:
    x, weight = uneven(*inputs), uneven(*weights, seed=1)
    all_into_the_input = smoothing_factors(maxima(x), weight, 0.0)
    torch.testing.assert_close(maxima(weight * all_into_the_input), torch.ones(6))
    all_into_the_weight = smoothing_factors(maxima(x), weight, 1.0)
    torch.testing.assert_close(maxima(x / all_into_the_weight), torch.ones(6))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dead", ["input", "weight", "whole input", "whole weight"])
def test_what_is_0_has_a_factor_too(dead: str, alpha: float) -> None:
    x, weight = random(20, 6).abs(), random(5, 6)
    of = x if "input" in dead else weight
    of[:, slice(None) if "whole" in dead else slice(2, 3)] = 0
    factor = smoothing_factors(maxima(x), weight, alpha)
    assert bool((factor.isfinite() & (factor > 0)).all())
    torch.testing.assert_close((x / factor) @ (weight * factor).T, x @ weight.T)
    if "whole" in dead:
        assert torch.equal(factor, torch.ones(6))


@pytest.mark.parametrize(("shape", "axis"), [((6, 4, 3, 3), 1), ((6, 4), -1), ((6, 5, 4), -1)])
def test_maxima_do_not_depend_on_order_and_partition(shape: tuple[int, ...], axis: int) -> None:
    x = random(*shape)
    results = []
    for parts in ([x], x.split(1), x.flip(0).split(4)):
        seen = ChannelMaxima(axis)
        for part in parts:
            seen(part)
        results.append(seen.maxima)
    for each in results:
        assert torch.equal(each, maxima(x, axis))


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_maxima_of_a_networks_inputs_are_seen(small_model: Make, small_data: Make, kind: str) -> None:
    model, inputs, shares = small_model(kind), {}, []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, []).append(args[0]))
        for name, layer in model.layers.items()
    ]
    found = channel_maxima(model, small_data(kind, report=shares.append), list(model.layers))
    for hook in hooks:
        hook.remove()
    assert found.keys() == model.layers.keys()
    for name, value in found.items():
        axis = 1 if model.layers[name].weight.dim() == 4 else -1
        assert torch.equal(value, maxima(torch.cat(inputs[name]), axis))
        assert len(value) == model.layers[name].weight.shape[1]
    assert sum(shares) == pytest.approx(1)


def test_only_chosen_layers_have_factors(small_model: Make, small_data: Make) -> None:
    model, shares = small_model(), []
    found = input_factors(model, small_data(), 0.5, lambda name, layer: name == "conv_in")
    assert found.keys() == {"conv_in"}
    assert torch.equal(found["conv_in"], smoothing_factors(maxima(small_data().x), model.layers["conv_in"].weight, 0.5))
    assert input_factors(model, small_data(report=shares.append), 0.5, lambda name, layer: False) == {}
    assert sum(shares) == 1


def test_layers_that_are_not_called_and_convolutions_in_groups_have_none(small_model: Make, small_data: Make) -> None:
    model = small_model()
    model.module.mid_block.attentions[0].to_v = nn.Identity()
    model.layers["conv_out"].groups = 2
    found = input_factors(model, small_data(), 0.5)
    assert model.layers.keys() - found.keys() == {"mid_block.attentions.0.to_v", "conv_out"}


@pytest.mark.parametrize(
    "original",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
        nn.Conv1d(4, 4, 3, padding=1, groups=2),
    ],
)
def test_a_layer_knows_its_groups_whatever_its_padding(original: nn.Module) -> None:
    assert QuantLayer(original, LayerBits(4, 8)).groups == original.groups


def test_an_input_that_is_not_finite_is_told(small_model: Make, small_data: Make) -> None:
    data = small_data()
    data.x[3, 0, 0, 0] = float("inf")
    with pytest.raises(StageError, match="the activation 'conv_in' holds NaN or infinity, so it cannot be smoothed"):
        input_factors(small_model(), data, 0.5)
