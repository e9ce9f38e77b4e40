import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.downsampling import Downsample2D
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION, BitWidth
from qbench.diffusion.structures import Structure
from qbench.diffusion.unet_structure import unet_structure
from qbench.errors import StageError
from qbench.quant.grid import grid_from_range
from qbench.quant.layers import LayerBits, QuantLayer
from qbench.quant.model import QuantModel
from qbench.quant.ranges import min_max_per_channel

W4A8 = BitWidth(4, 8)
T = torch.tensor([0, 1, 500, 999])
ANY = Structure(boundary_layers=("first", "last"))


class Net(nn.Module):
    """A denoiser made of one layer, called as diffusers' are."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = layer

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.inner(x),)


def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def wrapped(bits: BitWidth = W4A8, boundary_bits: int | None = None) -> QuantModel:
    module = unet()
    return QuantModel(module, unet_structure(module), bits, boundary_bits)


@pytest.fixture(autouse=True)
def _inference() -> object:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("bits", [FULL_PRECISION, W4A8])
def test_wrapped_in_full_precision_it_is_the_original_to_the_bit(bits: BitWidth) -> None:
    wanted = unet()(images(), T).sample
    model = wrapped(bits)
    assert torch.equal(model(images(), T), wanted)
    model.freeze()
    assert torch.equal(model(images(), T), wanted)


def test_every_convolution_and_linear_layer_is_wrapped_under_its_name() -> None:
    original = unet()
    names = [name for name, each in original.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    parameters = [name for name, _ in original.named_parameters()]
    model = QuantModel(original, unet_structure(original), W4A8)
    assert sorted(model.layers) == sorted(names)
    assert {"conv_in", "conv_out", "time_embedding.linear_1", "mid_block.attentions.0.to_q"} <= model.layers.keys()
    assert [name for name, _ in model.module.named_parameters()] == parameters
    assert all(model.module.get_submodule(name) is layer for name, layer in model.layers.items())


def test_a_layer_under_two_names_is_one_layer() -> None:
    """Downsample2D holds its convolution as Conv2d_0 and as conv, and calls it by the second name."""
    model = QuantModel(Net(Downsample2D(4, use_conv=True, name="conv")), ANY, W4A8)
    down = model.module.inner
    assert list(model.layers) == ["inner.Conv2d_0"]
    assert isinstance(down.conv, QuantLayer)
    assert down.conv is down.Conv2d_0 is model.layers["inner.Conv2d_0"]


def test_quantizing_a_layer_under_two_names_changes_the_output() -> None:
    model = QuantModel(Net(Downsample2D(4, use_conv=True, name="conv")), ANY, W4A8)
    x = torch.randn(1, 4, 8, 8)
    before = model(x, T)
    (layer,) = model.layers.values()
    layer.weight_grid = min_max_per_channel(layer.weight, 2)
    assert not torch.equal(model(x, T), before)


def test_a_block_under_two_parents_is_one_block() -> None:
    block = nn.Sequential(nn.Linear(3, 3))
    model = QuantModel(Net(nn.ModuleDict({"first": block, "second": block})), ANY, W4A8)
    assert list(model.layers) == ["inner.first.0"]
    assert model.module.inner["second"][0] is model.layers["inner.first.0"]


def test_a_layer_under_two_parents_is_one_layer() -> None:
    shared = nn.Linear(3, 3)
    model = QuantModel(Net(nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))), ANY, W4A8)
    assert list(model.layers) == ["inner.0.0"]
    assert model.module.inner[1][0] is model.layers["inner.0.0"]


@pytest.mark.parametrize("boundary_bits", [None, 8])
def test_two_layers_that_share_a_weight_are_refused_by_name(boundary_bits: int | None) -> None:
    """Each would have a grid of its own for it, and a file would hold it once."""
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    structure = Structure(boundary_layers=("inner.0", "inner.0"))
    with pytest.raises(StageError, match=r"the layers 'inner\.0' and 'inner\.2' share a weight"):
        QuantModel(Net(nn.Sequential(first, nn.ReLU(), second)), structure, W4A8, boundary_bits)


def test_the_bits_are_those_of_the_cell() -> None:
    model = wrapped()
    assert all(layer.bits == LayerBits(4, 8) for layer in model.layers.values())


def test_boundary_bits_are_for_the_weights_of_the_first_and_last_layer_only() -> None:
    model = wrapped(boundary_bits=8)
    assert {name: layer.bits for name, layer in model.layers.items() if layer.bits != LayerBits(4, 8)} == {
        "conv_in": LayerBits(8, 8),
        "conv_out": LayerBits(8, 8),
    }


@pytest.mark.parametrize("bits", [FULL_PRECISION, BitWidth(32, 8)])
def test_boundary_bits_do_not_quantize_what_the_cell_does_not(bits: BitWidth) -> None:
    model = wrapped(bits, boundary_bits=8)
    assert {layer.bits.weights for layer in model.layers.values()} == {32}


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))


class Scaled(nn.Linear):
    pass


@pytest.mark.parametrize("odd", [Odd(), nn.ConvTranspose2d(3, 3, 3), Scaled(3, 3), nn.Conv3d(1, 1, 1)])
def test_a_parameter_nobody_accounts_for_is_refused(odd: nn.Module) -> None:
    with pytest.raises(StageError, match=rf"the layer 'inner\.1' is a {type(odd).__name__}"):
        QuantModel(Net(nn.Sequential(nn.Linear(3, 3), odd)), ANY, W4A8)


def test_a_convolution_that_cannot_be_quantized_is_refused() -> None:
    reflecting = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    with pytest.raises(StageError, match="padding mode 'reflect'"):
        QuantModel(Net(nn.Sequential(reflecting)), ANY, W4A8)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["conv_in.weight", "mid_block.attentions.0.group_norm.bias", "conv_out.bias"])
def test_parameters_that_are_not_finite_are_refused_by_name(name: str, broken: float) -> None:
    module = unet()
    structure = unet_structure(module)
    module.get_parameter(name).view(-1)[1 if name != "conv_out.bias" else 0] = broken
    with pytest.raises(StageError, match=rf"the denoiser's {name!r} holds NaN or infinity"):
        QuantModel(module, structure, W4A8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    module = unet()
    structure = unet_structure(module)
    with pytest.raises(StageError, match=rf"the denoiser's 'conv_in.weight' is {dtype}: .* must be float32"):
        QuantModel(module.to(dtype), structure, W4A8)


def test_layers_that_the_structure_names_must_be_there() -> None:
    with pytest.raises(StageError, match="no layer 'first', which its structure names"):
        QuantModel(Net(nn.Linear(3, 3)), ANY, W4A8, boundary_bits=8)
    with pytest.raises(StageError, match="no layer 'nowhere', which its structure names"):
        QuantModel(Net(nn.Linear(3, 3)), Structure(("inner", "inner"), splits={"nowhere": 2}), W4A8)


def test_the_shortcuts_of_concatenations_know_their_split() -> None:
    model = wrapped()
    splits = {name: layer.split for name, layer in model.layers.items() if layer.split is not None}
    assert len(splits) == 4
    assert splits == model.structure.splits


@pytest.mark.parametrize("empty", [nn.ReLU(), nn.GroupNorm(1, 2)])
def test_nothing_to_quantize_is_refused(empty: nn.Module) -> None:
    with pytest.raises(StageError, match="nothing to quantize"):
        QuantModel(Net(empty), ANY, W4A8)


def test_what_a_method_leaves_out_is_listed() -> None:
    model = wrapped()
    for layer in model.layers.values():
        layer.weight_grid = min_max_per_channel(layer.weight, 4)
    for tap in model.taps.values():
        tap.grid = grid_from_range(torch.tensor(-1.0), torch.tensor(1.0), 8)
    assert model.left_out() == []
    model.layers["conv_in"].weight_grid = None
    model.layers["conv_out"].input_grid = None
    model.taps["mid_block.attentions.0.v"].grid = None
    assert model.left_out() == ["conv_in", "conv_out", "mid_block.attentions.0.v"]


@pytest.mark.parametrize("bits", ["W32A32", "W4A32", "W32A8", "W4A8", "W4A32S8", "W32A8S32"])
def test_only_what_the_cell_wants_can_be_left_out(bits: str) -> None:
    model = wrapped(BitWidth.parse(bits))
    softmaxes = {name for name in model.taps if name.endswith(".softmax")}
    products = {f"{name}.{operand}" for name in model.attentions for operand in "qkv"}
    assert (len(model.layers), len(softmaxes), len(products)) == (51, 4, 12)
    wanted = {
        "W32A32": set(),
        "W4A32": {*model.layers},
        "W32A8": {*model.layers, *softmaxes, *products},
        "W4A8": {*model.layers, *softmaxes, *products},
        "W4A32S8": {*model.layers, *softmaxes},
        "W32A8S32": {*model.layers, *products},
    }[bits]
    assert set(model.left_out()) == wanted
    assert len(model.left_out()) == len(wanted)
