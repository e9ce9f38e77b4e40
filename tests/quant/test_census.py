from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.diffusion.unet_structure import unet_structure
from qbench.quant import QuantModel
from qbench.quant.census import Count, Coverage, coverage, take_census
from qbench.quant.grid import AffineGrid
from qbench.quant.ranges import min_max_per_channel

T = torch.zeros(1, dtype=torch.int64)
STRUCTURE = Structure(boundary_layers=("first", "last"))


class ConvNet(nn.Module):
    """Two convolutions and a linear layer on the timestep, on 8 x 8 pixels."""

    x = torch.zeros(1, 2, 8, 8)
    macs = {"first": 8 * 8 * 4 * 2 * 9, "time": 4, "last": 4 * 4 * 2 * 2 * 9}  # noqa: RUF012 (never changed)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.time = nn.Linear(1, 4)
        self.last = nn.Conv2d(4, 2, 3, stride=2, padding=1, groups=2, bias=False)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        time = self.time(timestep[:, None].float())
        return (self.last(self.norm(self.first(x)) + time[:, :, None, None]),)


class AttentionNet(nn.Module):
    """Attention of 2 heads over 4 x 4 pixels or over a context of 3 tokens, called so many times."""

    x = torch.zeros(1, 8, 4, 4)

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


def macs_of(module: nn.Module, x: Tensor) -> dict[str, int]:
    return {count.name: count.macs for count in take_census(module, STRUCTURE, x, T)}


def covered(
    module: ConvNet | AttentionNet, bits: str, without: Callable[[QuantModel], None] = lambda model: None
) -> Coverage:
    """Return the coverage of a model that has every grid that its bits ask for, without some of them."""
    census = take_census(module, STRUCTURE, module.x, T)
    model = QuantModel(module.requires_grad_(False), STRUCTURE, BitWidth.parse(bits))
    for layer in model.layers.values():
        if layer.bits.weights < 32:
            layer.weight_grid = min_max_per_channel(layer.weight, layer.bits.weights)
    for tap in model.taps.values():
        if tap.bits < 32:
            tap.grid = AffineGrid(tap.bits, torch.tensor(0.1), torch.tensor(3.0))
    without(model)
    return coverage(model, census)


def test_convolutions_and_linear_layers_are_counted() -> None:
    assert set(take_census(ConvNet(), STRUCTURE, ConvNet.x, T)) == {
        Count("first", ("first",), 4 * 2 * 9, 8 * 8 * 4 * 2 * 9),
        Count("time", ("time",), 4, 4),
        Count("last", ("last",), 2 * 2 * 9, 4 * 4 * 2 * 2 * 9),
    }


def test_one_dimensional_convolutions_are_counted() -> None:
    class Sound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(2, 6, 3, stride=2, padding=1, groups=2)

        def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (self.first(x),)

    (count,) = take_census(Sound(), STRUCTURE, torch.zeros(1, 2, 10), T)
    assert count == Count("first", ("first",), 6 * 3, 5 * 6 * 3)


def test_a_layer_called_twice_counts_twice_and_one_never_called_not_at_all() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.unused = nn.Linear(5, 5)

        def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (self.layer(self.layer(x)),)

    assert macs_of(Twice(), torch.zeros(1, 3)) == {"layer": 2 * 9, "unused": 0}


def test_a_layer_under_two_names_counts_once_under_that_of_the_model() -> None:
    """One of them may lie deeper than the other."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = nn.Linear(3, 3)
            self.deep, self.b = nn.Sequential(shared), shared

        def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (self.b(self.deep(x)),)

    module = Two()
    census = take_census(module, STRUCTURE, torch.zeros(1, 3), T)
    model = QuantModel(module.requires_grad_(False), STRUCTURE, BitWidth(4, 32))
    assert [(count.name, count.parameters, count.macs) for count in census] == [(*model.layers, 9, 2 * 9)]
    for layer in model.layers.values():
        layer.weight_grid = min_max_per_channel(layer.weight, 4)
    assert coverage(model, census) == Coverage(9 / 12, 1.0, ())


@pytest.mark.parametrize("flat", [False, True])
def test_self_attention_is_counted(flat: bool) -> None:
    projection, product = 16 * 8 * 10, 2 * 16 * 16 * 5  # 2 heads of 16 x 16 x 5
    counts = {count.name: count for count in take_census(AttentionNet(flat=flat), STRUCTURE, AttentionNet.x, T)}
    layers = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
    assert counts == {
        **{name: Count(name, (name,), 80, projection) for name in layers},
        "attn.qk": Count("attn.qk", ("attn.q", "attn.k"), 0, product),
        "attn.sv": Count("attn.sv", ("attn.softmax", "attn.v"), 0, product),
    }


def test_cross_attention_is_counted() -> None:
    macs = macs_of(AttentionNet(context=6, flat=True), AttentionNet.x)
    assert macs["attn.to_q"] == 16 * 8 * 10
    assert macs["attn.to_k"] == macs["attn.to_v"] == 3 * 6 * 10
    assert macs["attn.qk"] == macs["attn.sv"] == 2 * 16 * 3 * 5


def test_what_is_attended_to_may_be_given_by_position() -> None:
    """Or there may be nothing but keywords."""

    class Positional(AttentionNet):
        def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (self.attn(x, torch.zeros(1, 3, 6)),)

    class ByName(AttentionNet):
        def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (self.attn(hidden_states=x, encoder_hidden_states=torch.zeros(1, 3, 6)),)

    for kind in (Positional, ByName):
        macs = macs_of(kind(context=6), AttentionNet.x)
        assert macs["attn.qk"] == macs["attn.sv"] == 2 * 16 * 3 * 5


def test_attention_called_twice_counts_twice() -> None:
    macs = macs_of(AttentionNet(calls=2), AttentionNet.x)
    assert macs["attn.to_q"] == 2 * (16 * 8 * 10)
    assert macs["attn.qk"] == macs["attn.sv"] == 2 * (2 * 16 * 16 * 5)


def residual(name: str, into: int, out: int, pixels: int, embedding: int) -> dict[str, tuple[int, int]]:
    """Weights and multiply-accumulates of a residual block of diffusers."""
    found = {
        f"{name}.conv1": (out * into * 9, pixels * out * into * 9),
        f"{name}.time_emb_proj": (out * embedding, out * embedding),
        f"{name}.conv2": (out * out * 9, pixels * out * out * 9),
    }
    if into != out:
        found[f"{name}.conv_shortcut"] = (out * into, pixels * out * into)
    return found


def attention(name: str, width: int, pixels: int) -> dict[str, tuple[int, int]]:
    layers = {f"{name}.{part}": (width**2, pixels * width**2) for part in ("to_q", "to_k", "to_v", "to_out.0")}
    return layers | {f"{name}.{product}": (0, pixels**2 * width) for product in ("qk", "sv")}


def test_a_whole_unet_is_counted() -> None:
    """Two levels of 8 x 8 and 4 x 4 pixels with 4 and 6 channels; the timestep goes from 4 to 16 channels."""
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=2,
        layers_per_block=1,
        block_out_channels=(4, 6),
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    expected = {
        "conv_in": (4 * 3 * 9, 64 * 4 * 3 * 9),
        "time_embedding.linear_1": (4 * 16, 4 * 16),
        "time_embedding.linear_2": (16 * 16, 16 * 16),
        **residual("down_blocks.0.resnets.0", 4, 4, 64, 16),
        "down_blocks.0.downsamplers.0.conv": (4 * 4 * 9, 16 * 4 * 4 * 9),
        **residual("down_blocks.1.resnets.0", 4, 6, 16, 16),
        **attention("down_blocks.1.attentions.0", 6, 16),
        **residual("mid_block.resnets.0", 6, 6, 16, 16),
        **attention("mid_block.attentions.0", 6, 16),
        **residual("mid_block.resnets.1", 6, 6, 16, 16),
        **residual("up_blocks.0.resnets.0", 6 + 6, 6, 16, 16),
        **attention("up_blocks.0.attentions.0", 6, 16),
        **residual("up_blocks.0.resnets.1", 6 + 4, 6, 16, 16),
        **attention("up_blocks.0.attentions.1", 6, 16),
        "up_blocks.0.upsamplers.0.conv": (6 * 6 * 9, 64 * 6 * 6 * 9),
        **residual("up_blocks.1.resnets.0", 6 + 4, 4, 64, 16),
        **residual("up_blocks.1.resnets.1", 4 + 4, 4, 64, 16),
        "conv_out": (2 * 4 * 9, 64 * 2 * 4 * 9),
    }
    structure = unet_structure(unet)
    census = take_census(unet, structure, torch.zeros(1, 3, 8, 8), T)
    assert {count.name: (count.parameters, count.macs) for count in census} == expected
    model = QuantModel(unet, structure, BitWidth(4, 8))
    assert {count.name for count in census if count.parameters} == model.layers.keys()
    assert {operand for count in census for operand in count.operands} == model.taps.keys()


def test_what_a_denoiser_is_conditioned_on_is_handed_on(small_unet: Callable[..., UNet2DModel]) -> None:
    unet = small_unet("text")
    context = {"encoder_hidden_states": torch.zeros(1, 3, 6)}
    census = take_census(unet, unet_structure(unet), torch.zeros(1, 2, 8, 8), T, context)
    macs = {count.name: count.macs for count in census}
    name = "mid_block.attentions.0.transformer_blocks.0"
    assert macs[f"{name}.attn1.qk"] == 16 * 16 * 8
    assert macs[f"{name}.attn2.qk"] == macs[f"{name}.attn2.sv"] == 16 * 3 * 8
    assert macs[f"{name}.attn2.to_k"] == 3 * 6 * 8


def test_the_denoiser_is_left_as_it_was() -> None:
    module = AttentionNet()
    before = [(name, type(each)) for name, each in module.named_modules()]
    take_census(module, STRUCTURE, AttentionNet.x, T)
    with pytest.raises(RuntimeError):
        take_census(module, STRUCTURE, torch.zeros(1, 7, 4, 4), T)
    assert not any(each._forward_hooks for each in module.modules())
    assert [(name, type(each)) for name, each in module.named_modules()] == before


@pytest.mark.parametrize("module", [ConvNet, AttentionNet])
def test_a_denoiser_that_is_wrapped_is_refused(module: type[ConvNet | AttentionNet]) -> None:
    wrapped = module()
    QuantModel(wrapped, STRUCTURE, BitWidth(4, 8))
    with pytest.raises(ValueError, match="a census is taken before the layers are wrapped"):
        take_census(wrapped, STRUCTURE, module.x, T)


@pytest.mark.parametrize("module", [ConvNet, AttentionNet])
def test_everything_quantized_is_full_coverage_of_macs(module: type[ConvNet | AttentionNet]) -> None:
    found = covered(module(), "W4A8")
    assert found.macs == 1.0
    assert found.left_out == ()
    weights = {
        ConvNet: (72 + 4 + 36) / (72 + 4 + 36 + 16),
        AttentionNet: 4 * 80 / (4 * 80 + 8),
    }  # neither biases nor norms
    assert found.parameters == pytest.approx(weights[module])


def test_products_of_activations_are_never_quantized_with_weights_alone() -> None:
    found = covered(AttentionNet(), "W4A32")
    layers, products = 4 * 16 * 8 * 10, 2 * (2 * 16 * 16 * 5)
    assert found.macs == pytest.approx(layers / (layers + products))
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("left_out", "product"),
    [(("attn.q",), 1), (("attn.q", "attn.k"), 1), (("attn.softmax",), 1), (("attn.k", "attn.v"), 2)],
)
def test_a_product_counts_only_if_both_operands_are_quantized(left_out: tuple[str, ...], product: int) -> None:
    def without(model: QuantModel) -> None:
        for name in left_out:
            model.taps[name].grid = None

    found = covered(AttentionNet(), "W4A8", without)
    layers, one = 4 * 16 * 8 * 10, 2 * 16 * 16 * 5
    assert found.left_out == left_out
    assert found.macs == pytest.approx((layers + (2 - product) * one) / (layers + 2 * one))


def test_a_softmax_in_full_precision_is_not_left_out_but_not_covered_either() -> None:
    found = covered(AttentionNet(), "W4A8S32")
    layers, one = 4 * 16 * 8 * 10, 2 * 16 * 16 * 5
    assert found.left_out == ()
    assert found.macs == pytest.approx((layers + one) / (layers + 2 * one))


def test_a_layer_counts_only_if_both_operands_are_quantized() -> None:
    def without(model: QuantModel) -> None:
        model.layers["last"].input_grid = None
        model.layers["time"].weight_grid = None

    found = covered(ConvNet(), "W4A8", without)
    assert set(found.left_out) == {"time", "last"}
    assert found.macs == pytest.approx(ConvNet.macs["first"] / sum(ConvNet.macs.values()))
    assert found.parameters == pytest.approx((72 + 36) / 128)


def test_activations_alone_cover_macs_and_no_parameters() -> None:
    assert covered(ConvNet(), "W32A8") == Coverage(0.0, 1.0, ())


def test_full_precision_covers_nothing_and_leaves_nothing_out() -> None:
    assert covered(ConvNet(), "W32A32") == Coverage(0.0, 0.0, ())


def test_a_method_that_does_nothing_covers_nothing() -> None:
    def without(model: QuantModel) -> None:
        for name, tap in model.taps.items():
            tap.grid = None
            if name in model.layers:
                model.layers[name].weight_grid = None

    found = covered(AttentionNet(), "W4A8", without)
    assert (found.macs, found.parameters) == (0.0, 0.0)
    operands = {"attn.q", "attn.k", "attn.softmax", "attn.v"}
    assert set(found.left_out) == {"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"} | operands


@pytest.mark.parametrize("state", ["W4A8", "W4A32", "W32A8"])
def test_freezing_changes_no_coverage(state: str) -> None:
    assert covered(ConvNet(), state, QuantModel.freeze) == covered(ConvNet(), state)
