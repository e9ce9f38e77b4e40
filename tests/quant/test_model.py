import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.downsampling import Downsample2D
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION, BitWidth
from qbench.diffusion.structures import DIFFUSERS_UNET
from qbench.errors import StageError
from qbench.quant.grid import grid_from_range
from qbench.quant.layers import LayerBits, QuantLayer
from qbench.quant.model import QuantModel, run_over
from qbench.quant.ranges import RunningMinMax, min_max_per_channel

W4A8 = BitWidth(4, 8)
T = torch.tensor([0, 1, 500, 999])


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


def quantized(bits: BitWidth = W4A8) -> QuantModel:
    """A model with grids everywhere, ranges from a few images."""
    model = QuantModel(unet(), DIFFUSERS_UNET, bits)
    for layer in model.layers.values():
        layer.weight_grid = min_max_per_channel(layer.weight, bits.weights)
    ranges = {name: RunningMinMax() for name in model.layers}
    with model.observing(ranges.__getitem__):
        run_over(model, images(), T, 4)
    for name, layer in model.layers.items():
        layer.input_grid = ranges[name].grid(bits.activations)
    return model


@pytest.fixture(autouse=True)
def _inference() -> object:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("bits", [FULL_PRECISION, W4A8])
def test_wrapped_in_full_precision_it_is_the_original_to_the_bit(bits: BitWidth) -> None:
    wanted = unet()(images(), T).sample
    model = QuantModel(unet(), DIFFUSERS_UNET, bits)
    assert torch.equal(model(images(), T), wanted)
    model.freeze()
    assert torch.equal(model(images(), T), wanted)


def test_every_convolution_and_linear_layer_is_wrapped_under_its_name() -> None:
    original = unet()
    names = [name for name, each in original.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    parameters = [name for name, _ in original.named_parameters()]
    model = QuantModel(original, DIFFUSERS_UNET, W4A8)
    assert sorted(model.layers) == sorted(names)
    assert {"conv_in", "conv_out", "time_embedding.linear_1", "mid_block.attentions.0.to_q"} <= model.layers.keys()
    assert [name for name, _ in model.module.named_parameters()] == parameters
    assert all(model.module.get_submodule(name) is layer for name, layer in model.layers.items())


def test_a_layer_under_two_names_is_one_layer() -> None:
    """Downsample2D holds its convolution as Conv2d_0 and as conv, and calls it by the second name."""
    model = QuantModel(Net(Downsample2D(4, use_conv=True, name="conv")), DIFFUSERS_UNET, W4A8)
    down = model.module.inner
    assert list(model.layers) == ["inner.Conv2d_0"]
    assert isinstance(down.conv, QuantLayer)
    assert down.conv is down.Conv2d_0 is model.layers["inner.Conv2d_0"]


def test_quantizing_a_layer_under_two_names_changes_the_output() -> None:
    model = QuantModel(Net(Downsample2D(4, use_conv=True, name="conv")), DIFFUSERS_UNET, W4A8)
    x = torch.randn(1, 4, 8, 8)
    before = model(x, T)
    (layer,) = model.layers.values()
    layer.weight_grid = min_max_per_channel(layer.weight, 2)
    assert not torch.equal(model(x, T), before)


def test_a_block_under_two_parents_is_one_block() -> None:
    block = nn.Sequential(nn.Linear(3, 3))
    model = QuantModel(Net(nn.ModuleDict({"first": block, "second": block})), DIFFUSERS_UNET, W4A8)
    assert list(model.layers) == ["inner.first.0"]
    assert model.module.inner["second"][0] is model.layers["inner.first.0"]


def test_a_layer_under_two_parents_is_one_layer() -> None:
    shared = nn.Linear(3, 3)
    model = QuantModel(Net(nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))), DIFFUSERS_UNET, W4A8)
    assert list(model.layers) == ["inner.0.0"]
    assert model.module.inner[1][0] is model.layers["inner.0.0"]


def test_the_bits_are_those_of_the_cell() -> None:
    model = QuantModel(unet(), DIFFUSERS_UNET, W4A8)
    assert all(layer.bits == LayerBits(4, 8) for layer in model.layers.values())


def test_boundary_bits_are_for_the_weights_of_the_first_and_last_layer_only() -> None:
    model = QuantModel(unet(), DIFFUSERS_UNET, W4A8, boundary_bits=8)
    assert {name: layer.bits for name, layer in model.layers.items() if layer.bits != LayerBits(4, 8)} == {
        "conv_in": LayerBits(8, 8),
        "conv_out": LayerBits(8, 8),
    }


@pytest.mark.parametrize("bits", [FULL_PRECISION, BitWidth(32, 8)])
def test_boundary_bits_do_not_quantize_what_the_cell_does_not(bits: BitWidth) -> None:
    model = QuantModel(unet(), DIFFUSERS_UNET, bits, boundary_bits=8)
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
        QuantModel(Net(nn.Sequential(nn.Linear(3, 3), odd)), DIFFUSERS_UNET, W4A8)


def test_a_convolution_that_cannot_be_quantized_is_refused() -> None:
    reflecting = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    with pytest.raises(StageError, match="padding mode 'reflect'"):
        QuantModel(Net(nn.Sequential(reflecting)), DIFFUSERS_UNET, W4A8)


@pytest.mark.parametrize("empty", [nn.ReLU(), nn.GroupNorm(1, 2)])
def test_nothing_to_quantize_is_refused(empty: nn.Module) -> None:
    with pytest.raises(StageError, match="nothing to quantize"):
        QuantModel(Net(empty), DIFFUSERS_UNET, W4A8)


def test_what_a_method_leaves_out_is_listed() -> None:
    model = quantized()
    assert model.left_out() == []
    model.layers["conv_in"].weight_grid = None
    model.layers["conv_out"].input_grid = None
    assert model.left_out() == ["conv_in", "conv_out"]


@pytest.mark.parametrize(("weights", "activations", "count"), [(32, 32, 0), (4, 32, 51), (32, 8, 51)])
def test_only_what_the_cell_wants_can_be_left_out(weights: int, activations: int, count: int) -> None:
    model = QuantModel(unet(), DIFFUSERS_UNET, BitWidth(weights, activations))
    assert len(model.left_out()) == count * len(model.layers) // 51


def test_observers_see_every_layers_input_while_they_look() -> None:
    model = quantized()
    seen: dict[str, list[Tensor]] = {name: [] for name in model.layers}
    with model.observing(lambda name: seen[name].append):
        model(images(), T)
    model(images(seed=1), T)
    assert {len(each) for each in seen.values()} == {1}
    assert torch.equal(seen["conv_in"][0], images())


def test_observers_leave_when_something_goes_wrong() -> None:
    model = QuantModel(unet(), DIFFUSERS_UNET, W4A8)

    def look() -> None:
        with model.observing(lambda name: lambda x: None):
            model(torch.zeros(1, 99, 8, 8), T[:1])

    with pytest.raises(RuntimeError):
        look()
    assert all(layer.observer is None for layer in model.layers.values())


def test_folding_changes_no_bit_of_the_output() -> None:
    model = quantized()
    per_call = model(images(seed=1), T)
    model.freeze()
    assert torch.equal(model(images(seed=1), T), per_call)
    assert not torch.equal(per_call, unet()(images(seed=1), T).sample)


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    model = quantized()
    model.freeze()
    alone = images(seed=1)
    crowded = torch.cat([alone[:2], 100 * images(2, seed=2)])
    assert torch.equal(model(alone, T)[:2], model(crowded, T)[:2])


def test_run_over_takes_every_row_once() -> None:
    model = QuantModel(unet(), DIFFUSERS_UNET, W4A8)
    seen: list[Tensor] = []
    reported: list[int] = []
    observers = {"conv_in": seen.append}
    with model.observing(lambda name: observers.get(name, lambda x: None)):
        run_over(model, images(7), torch.zeros(7, dtype=torch.int64), 3, reported.append)
    assert torch.equal(torch.cat(seen), images(7))
    assert reported == [3, 3, 1]


def test_a_static_grid_clamps_what_calibration_never_saw() -> None:
    model = quantized()
    for layer in model.layers.values():
        layer.input_grid = grid_from_range(torch.tensor(0.0), torch.tensor(0.0), 8)
    assert model(1e3 * images(), T).isfinite().all()
