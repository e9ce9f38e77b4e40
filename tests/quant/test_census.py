import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.quant.census import count_macs, coverage
from qbench.quant.grid import AffineGrid
from qbench.quant.model import QuantModel
from qbench.quant.ranges import min_max_per_channel

T = torch.zeros(1, dtype=torch.int64)
STRUCTURE = Structure(boundary_layers=("first", "last"))


class ConvNet(nn.Module):
    """Two convolutions and a linear layer on the timestep, on 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.time = nn.Linear(1, 4)
        self.last = nn.Conv2d(4, 2, 3, stride=2, padding=1, groups=2, bias=False)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        time = self.time(timestep[:, None].float())
        return (self.last(self.norm(self.first(x)) + time[:, :, None, None]),)


CONV_MACS = {"first": 8 * 8 * 4 * 2 * 9, "time": 4, "last": 4 * 4 * 2 * 2 * 9}
CONV_X = torch.zeros(1, 2, 8, 8)


class AttentionNet(nn.Module):
    """Attention of 2 heads over 4 x 4 pixels or over a context of 3 tokens, called so many times."""

    def __init__(self, context: int | None = None, calls: int = 1, flat: bool = False) -> None:
        super().__init__()
        self.attn = Attention(8, cross_attention_dim=context, heads=2, dim_head=5)
        self.context, self.calls, self.flat = context, calls, flat

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        given = {} if self.context is None else {"encoder_hidden_states": torch.zeros(1, 3, self.context)}
        if self.flat:
            x = x.flatten(2).transpose(1, 2)
        for _ in range(self.calls):
            x = self.attn(x, **given)
        return (x,)


def make(module: nn.Module, weights: int, activations: int) -> QuantModel:
    """A model with every grid that its bits ask for."""
    model = QuantModel(module.requires_grad_(False), STRUCTURE, BitWidth(weights, activations))
    for layer in model.layers.values():
        if weights < 32:
            layer.weight_grid = min_max_per_channel(layer.weight, weights)
        if activations < 32:
            layer.input_grid = AffineGrid(activations, torch.tensor(0.1), torch.tensor(3.0))
    return model


def test_macs_of_convolutions_and_linear_layers() -> None:
    assert count_macs(make(ConvNet(), 32, 32), CONV_X, T) == CONV_MACS


@pytest.mark.parametrize("state", [(4, 8), (4, 32), (32, 8)])
def test_macs_do_not_depend_on_what_is_quantized(state: tuple[int, int]) -> None:
    model = make(ConvNet(), *state)
    assert count_macs(model, CONV_X, T) == CONV_MACS
    model.freeze()
    assert count_macs(model, CONV_X, T) == CONV_MACS


def test_a_layer_called_twice_counts_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (self.layer(self.layer(x)),)

    assert count_macs(make(Twice(), 32, 32), torch.zeros(1, 3), T) == {"layer": 2 * 9}


@pytest.mark.parametrize("flat", [False, True])
def test_macs_of_self_attention(flat: bool) -> None:
    model = make(AttentionNet(flat=flat), 32, 32)
    projection = 16 * 8 * 10
    assert count_macs(model, torch.zeros(1, 8, 4, 4), T) == {
        "attn.to_q": projection,
        "attn.to_k": projection,
        "attn.to_v": projection,
        "attn.to_out.0": projection,
        "attn.attention": 2 * (2 * 16 * 16 * 5),  # two products; 2 heads of 16 x 16 x 5
    }


def test_macs_of_cross_attention() -> None:
    macs = count_macs(make(AttentionNet(context=6, flat=True), 32, 32), torch.zeros(1, 8, 4, 4), T)
    assert macs["attn.to_q"] == 16 * 8 * 10
    assert macs["attn.to_k"] == macs["attn.to_v"] == 3 * 6 * 10
    assert macs["attn.attention"] == 2 * (2 * 16 * 3 * 5)


def test_attention_called_twice_counts_twice() -> None:
    macs = count_macs(make(AttentionNet(calls=2), 32, 32), torch.zeros(1, 8, 4, 4), T)
    assert macs["attn.to_q"] == 2 * (16 * 8 * 10)
    assert macs["attn.attention"] == 2 * 2 * (2 * 16 * 16 * 5)


def test_no_hook_stays_behind() -> None:
    model = make(AttentionNet(), 32, 32)
    count_macs(model, torch.zeros(1, 8, 4, 4), T)
    with pytest.raises(RuntimeError):
        count_macs(model, torch.zeros(1, 7, 4, 4), T)
    assert not any(module._forward_hooks for module in model.module.modules())


def test_everything_quantized_is_full_coverage_of_macs() -> None:
    found = coverage(make(ConvNet(), 4, 8), CONV_X, T)
    assert found.macs == 1.0
    assert found.left_out == ()
    # All weights, but neither biases (4 + 4) nor the norm (8).
    assert found.parameters == pytest.approx((72 + 4 + 36) / (72 + 4 + 36 + 16))


def test_products_of_activations_are_never_quantized_with_weights_alone() -> None:
    found = coverage(make(AttentionNet(), 4, 32), torch.zeros(1, 8, 4, 4), T)
    layers, products = 4 * 16 * 8 * 10, 2 * (2 * 16 * 16 * 5)
    assert found.macs == pytest.approx(layers / (layers + products))


def test_a_layer_counts_only_if_both_operands_are_quantized() -> None:
    model = make(ConvNet(), 4, 8)
    model.layers["last"].input_grid = None
    model.layers["time"].weight_grid = None
    found = coverage(model, CONV_X, T)
    assert found.left_out == tuple(name for name in model.layers if name in ("time", "last"))
    assert found.macs == pytest.approx(CONV_MACS["first"] / sum(CONV_MACS.values()))
    assert found.parameters == pytest.approx((72 + 36) / 128)


def test_activations_alone_cover_macs_and_no_parameters() -> None:
    found = coverage(make(ConvNet(), 32, 8), CONV_X, T)
    assert (found.macs, found.parameters, found.left_out) == (1.0, 0.0, ())


def test_full_precision_covers_nothing_and_leaves_nothing_out() -> None:
    found = coverage(make(ConvNet(), 32, 32), CONV_X, T)
    assert (found.macs, found.parameters, found.left_out) == (0.0, 0.0, ())


def test_a_method_that_does_nothing_covers_nothing() -> None:
    model = QuantModel(ConvNet(), STRUCTURE, BitWidth(4, 8))
    found = coverage(model, CONV_X, T)
    assert (found.macs, found.parameters) == (0.0, 0.0)
    assert sorted(found.left_out) == ["first", "last", "time"]
