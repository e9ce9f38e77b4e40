from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.errors import StageError
from qbench.quant import QuantModel, hessians, input_hessians, inverse_factor, min_max_per_channel
from qbench.quant.hessians import InputHessian
from qbench.quant.layers import LayerBits, QuantLayer

Make = Callable[..., Any]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hessian_of(original: nn.Module, *inputs: Tensor) -> Tensor:
    found = InputHessian("layer", QuantLayer(original, LayerBits(4, 32)))
    for x in inputs:
        found(x)
    return found.value


LAYERS = [
    pytest.param(lambda: nn.Linear(5, 3), (7, 5), id="linear"),
    pytest.param(lambda: nn.Linear(5, 3), (2, 4, 5), id="linear over tokens"),
    pytest.param(lambda: nn.Conv2d(4, 6, 3, padding=1), (3, 4, 5, 5), id="convolution"),
    pytest.param(lambda: nn.Conv2d(4, 6, 1), (3, 4, 5, 5), id="convolution of single pixels"),
    pytest.param(lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (0, 1), (1, 2)), (3, 4, 6, 5), id="uneven convolution"),
    pytest.param(lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (3, 4, 5, 5), id="convolution in groups"),
    pytest.param(lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), (3, 4, 5, 5), id="one channel a group"),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_it_tells_the_squared_error_of_a_layers_output(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    """For any change D of the weight: |D X|^2 = 1/2 D H D^T, summed over rows."""
    layer = QuantLayer(make().requires_grad_(False), LayerBits(4, 32))
    x = random(*shape)
    found = InputHessian("layer", layer)
    found(x)
    change = random(*layer.weight.shape, seed=1)
    before = layer(x)
    layer.weight += change
    rows = change.reshape(found.value.shape[0], -1, found.value.shape[1])
    expected = 0.5 * (rows @ found.value * rows).sum()
    assert float((layer(x) - before).pow(2).sum()) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_it_does_not_depend_on_how_inputs_are_shared_out(
    make: Callable[[], nn.Module], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, original = random(*shape), make()
    whole = hessian_of(original, x)
    torch.testing.assert_close(hessian_of(original, x[:1], x[1:]), whole, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(hessians, "COLUMN_VALUES", 1)
    torch.testing.assert_close(hessian_of(original, x), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("original", [nn.Conv1d(2, 3, 3), nn.Conv2d(2, 3, 3, padding="same")])
def test_a_layer_whose_windows_are_not_known_is_refused(original: nn.Module) -> None:
    with pytest.raises(StageError, match="'layer' is neither linear nor a convolution of images with padding"):
        hessian_of(original)


def observed(model: QuantModel, data: Any) -> dict[str, Tensor]:
    """The Hessians of all layers, from one pass through the model as it is set."""
    found = {name: InputHessian(name, layer) for name, layer in model.layers.items()}
    with model.observing(lambda name: found.get(name, lambda x: None)):
        data.run_through(model)
    return {name: each.value for name, each in found.items()}


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("granularity", ["block", "layer"])
def test_where_nothing_is_quantized_they_are_those_of_one_pass(
    small_model: Make, small_data: Make, kind: str, granularity: Any
) -> None:
    model, shares = small_model(kind), []
    found = dict(input_hessians(model, small_data(kind, report=shares.append), granularity))
    wanted = observed(model, small_data(kind))
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-3)
    assert sum(shares) == pytest.approx(1)
    assert all(tap.observer is None for tap in model.taps.values())


def quantizing(model: QuantModel, data: Any, granularity: Any, names: set[str]) -> dict[str, Tensor]:
    """Put grids of two bits into some layers as soon as they come by; return all Hessians."""
    found = {}
    for name, value in input_hessians(model, data, granularity):
        found[name] = value
        if name in names:
            model.layers[name].weight_grid = min_max_per_channel(model.layers[name].weight, 2)
    return found


@pytest.mark.parametrize("granularity", ["block", "layer"])
def test_blocks_see_what_became_of_those_before(small_model: Make, small_data: Make, granularity: Any) -> None:
    model, data = small_model(), small_data()
    exact = observed(model, data)
    found = quantizing(model, data, granularity, {"conv_in"})
    wanted = observed(model, data)  # conv_in has its grid by now
    assert torch.equal(found["conv_in"], exact["conv_in"])
    for name in ("down_blocks.0.resnets.0.conv1", "mid_block.attentions.0.to_q", "conv_out"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-3)
        assert not torch.allclose(found[name], exact[name], rtol=1e-2)


@pytest.mark.parametrize(("granularity", "is_same"), [("block", True), ("layer", False)])
def test_layers_of_a_block_see_each_other_quantized_only_if_taken_one_by_one(
    small_model: Make, small_data: Make, granularity: Any, is_same: bool
) -> None:
    model, data = small_model(), small_data()
    first, second = "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.conv2"
    exact = observed(model, data)
    found = quantizing(model, data, granularity, {first})
    assert torch.allclose(found[second], exact[second], rtol=1e-4, atol=1e-3) is is_same
    wanted = observed(model, data)
    assert torch.allclose(found[second], wanted[second], rtol=1e-4, atol=1e-3) is not is_same


def test_layers_come_in_execution_order_and_those_of_32_bits_do_not(small_model: Make, small_data: Make) -> None:
    model = small_model(boundary_bits=32)
    names = [name for name, _ in input_hessians(model, small_data(), "layer")]
    assert set(names) == model.layers.keys() - {"conv_in", "conv_out"}
    assert names[:2] == ["time_embedding.linear_1", "time_embedding.linear_2"]
    assert names.index("mid_block.resnets.0.conv1") < names.index("up_blocks.0.resnets.0.conv1")


def test_an_input_that_is_not_finite_is_told(small_model: Make, small_data: Make) -> None:
    model, data = small_model(), small_data()
    data.x[3, 0, 0, 0] = float("nan")
    with pytest.raises(StageError, match="the activation 'conv_in' holds NaN or infinity"):
        list(input_hessians(model, data, "block"))


def positive(columns: int, groups: int = 1, seed: int = 0) -> Tensor:
    x = random(groups, columns, 3 * columns, seed=seed).double()
    return (2 * x @ x.transpose(1, 2)).float()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("damping", [0.0, 0.01, 1.0])
def test_the_factor_is_that_of_the_inverse(groups: int, damping: float) -> None:
    hessian = positive(9, groups)
    untouched = hessian.clone()
    factor = inverse_factor(hessian, damping)
    assert torch.equal(hessian, untouched)
    assert torch.equal(factor, factor.triu())
    exact = hessian.double()
    damped = exact + damping * exact.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(9)
    wanted = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)  # as the authors compute it
    torch.testing.assert_close(factor, wanted, rtol=1e-6, atol=1e-9)


def test_inputs_that_are_always_0_stay_apart() -> None:
    whole, dead = positive(6), [1, 4]
    alive = [index for index in range(6) if index not in dead]
    whole[:, dead] = 0
    whole[:, :, dead] = 0
    factor = inverse_factor(whole, 0.01)
    assert torch.equal(factor[:, dead], torch.eye(6)[dead] * factor[:, dead])
    of_rest = inverse_factor(whole[:, alive][:, :, alive], 0.01)
    torch.testing.assert_close(factor[:, alive][:, :, alive], of_rest)
    nothing = inverse_factor(torch.zeros(1, 3, 3), 0.0)
    assert torch.equal(nothing, torch.eye(3).double()[None])


def test_what_has_no_inverse_is_told() -> None:
    single = torch.ones(1, 3, 3)
    with pytest.raises(ValueError, match="no inverse: use more calibration data or more damping"):
        inverse_factor(single, 0.0)
    assert bool(inverse_factor(single, 0.01).isfinite().all())
