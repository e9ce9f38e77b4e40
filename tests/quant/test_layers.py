import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from qbench.diffusion.unet_structure import unet_structure
from qbench.errors import StageError
from qbench.quant.grid import AffineGrid, grid_from_range
from qbench.quant.grid_kinds import SplitGrid, StepGrid
from qbench.quant.layers import Clock, LayerBits, QuantLayer, Tap, is_quantizable
from qbench.quant.ranges import min_max_per_channel

LAYERS = [
    pytest.param(lambda: nn.Linear(6, 4), (3, 6), id="linear"),
    pytest.param(lambda: nn.Linear(6, 4, bias=False), (3, 5, 6), id="linear on tokens"),
    pytest.param(lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), (3, 4, 9), id="conv1d"),
    pytest.param(lambda: nn.Conv2d(4, 6, 3), (3, 4, 9, 9), id="conv2d"),
    pytest.param(lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), (3, 4, 9, 9), id="stride"),
    pytest.param(lambda: nn.Conv2d(4, 6, 3, dilation=2, padding="same", groups=2), (3, 4, 9, 9), id="dilation"),
    pytest.param(lambda: nn.Conv2d(4, 6, (1, 3), padding=(0, 1)), (3, 4, 9, 9), id="oblong"),
]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def wrap(original: nn.Module, weights: int = 4, activations: int = 8) -> QuantLayer:
    return QuantLayer(original, LayerBits(weights, activations))


def input_grid() -> AffineGrid:
    return grid_from_range(torch.tensor(-1.5), torch.tensor(2.0), 4)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_without_grids_it_is_the_original_to_the_bit(make, shape: tuple[int, ...]) -> None:
    original = make()
    wanted = original(random(*shape))
    assert torch.equal(wrap(original)(random(*shape)), wanted)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_weight_and_input_are_rounded_to_their_grids(make, shape: tuple[int, ...]) -> None:
    layer, by_hand = wrap(make()), make()
    layer.weight_grid = min_max_per_channel(layer.weight, 4)
    layer.input_grid = input_grid()
    by_hand.load_state_dict(layer.state_dict())
    with torch.no_grad():
        by_hand.weight.copy_(layer.weight_grid(layer.weight))
        wanted = by_hand(layer.input_grid(random(*shape)))
        assert torch.equal(layer(random(*shape)), wanted)
        assert not torch.equal(layer(random(*shape)), by_hand(random(*shape)))


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_folding_changes_no_bit_of_the_output(make, shape: tuple[int, ...]) -> None:
    layer = wrap(make())
    layer.weight_grid = min_max_per_channel(layer.weight, 3)
    layer.input_grid = input_grid()
    per_call = layer(random(*shape))
    for _ in range(2):
        layer.fold()
        assert torch.equal(layer(random(*shape)), per_call)
    assert layer.weight.flatten(1).unique(dim=1).shape[1] <= layer.weight[0].numel()
    assert all(len(channel.unique()) <= 2**3 for channel in layer.weight)


def test_folding_without_a_grid_changes_nothing() -> None:
    layer = wrap(nn.Linear(6, 4))
    before = layer.weight.clone()
    layer.fold()
    assert torch.equal(layer.weight, before)


def test_stored_integers_are_adopted() -> None:
    layer, stored = wrap(nn.Linear(6, 4)), wrap(nn.Linear(6, 4))
    grid = min_max_per_channel(stored.weight, 4)
    stored.weight_grid = grid
    layer.bias = stored.bias
    layer.adopt(grid, grid.quantize(stored.weight).to(torch.uint8))
    assert layer.weight_grid is grid
    assert torch.equal(layer(random(3, 6)), stored(random(3, 6)))
    layer.fold()
    assert torch.equal(layer(random(3, 6)), stored(random(3, 6)))


def test_parameters_are_taken_over_under_their_names() -> None:
    original = nn.Conv2d(2, 3, 3)
    layer = wrap(original)
    assert layer.weight is original.weight
    assert dict(layer.named_parameters()).keys() == dict(original.named_parameters()).keys()
    layer.load_state_dict(nn.Conv2d(2, 3, 3).state_dict())
    assert "bias" not in wrap(nn.Linear(2, 2, bias=False)).state_dict()


def test_the_observer_sees_the_input_before_quantization() -> None:
    seen: list[Tensor] = []
    layer = wrap(nn.Linear(6, 4))
    layer.input_grid = input_grid()
    layer.tap.observer = seen.append
    x = random(3, 6)
    layer(x)
    assert len(seen) == 1
    assert torch.equal(seen[0], random(3, 6))
    assert torch.equal(x, random(3, 6))


def test_the_input_grid_is_that_of_the_tap() -> None:
    layer, grid = wrap(nn.Linear(6, 4)), input_grid()
    layer.input_grid = grid
    assert layer.tap.grid is grid
    layer.tap.grid = None
    assert layer.input_grid is None
    assert (layer.tap.bits, layer.bits) == (8, LayerBits(4, 8))


def test_a_tap_that_is_not_enabled_lets_pass_what_it_observes() -> None:
    seen: list[Tensor] = []
    tap = Tap(4)
    assert tap.is_idle
    tap.grid = input_grid()
    assert not tap.is_idle
    assert not torch.equal(tap(random(3, 6)), random(3, 6))
    tap.enabled = False
    assert tap.is_idle
    assert torch.equal(tap(random(3, 6)), random(3, 6))
    tap.observer = seen.append
    assert not tap.is_idle
    assert torch.equal(tap(random(3, 6)), random(3, 6))
    assert len(seen) == 1


def test_a_tap_reads_the_step_from_the_clock() -> None:
    clock = Clock()
    tap = Tap(8, clock)
    tap.grid = StepGrid(8, torch.tensor([0.1, 1.0]), torch.tensor([128.0, 128.0]))
    clock.steps = torch.tensor([1, 0, 1])
    assert torch.equal(tap(random(3, 6)), tap.grid(random(3, 6), clock.steps))
    clock.steps = None
    with pytest.raises(ValueError, match="without being told the step"):
        tap(random(3, 6))


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_switched_off_it_is_the_original_to_the_bit(make, shape: tuple[int, ...]) -> None:
    original = make()
    wanted = original(random(*shape))
    layer = wrap(original)
    layer.weight_grid = min_max_per_channel(layer.weight, 2)
    layer.input_grid = input_grid()
    quantized = layer(random(*shape))
    layer.tap.enabled = False
    assert torch.equal(layer(random(*shape)), wanted)
    layer.tap.enabled = True
    assert torch.equal(layer(random(*shape)), quantized)
    layer.weight_grid = layer.input_grid = None
    assert torch.equal(layer(random(*shape)), wanted)


def test_the_original_weight_is_kept_until_folding() -> None:
    layer = wrap(nn.Linear(6, 4))
    original = layer.weight.detach().clone()
    layer.weight_grid = min_max_per_channel(layer.weight, 2)
    rounded = layer.weight_grid(original)
    assert torch.equal(layer.weight, original)
    assert torch.equal(layer.rounded, rounded)
    layer.weight_grid = min_max_per_channel(layer.weight, 8)
    assert torch.equal(layer.rounded, layer.weight_grid(original))
    layer.fold()
    assert torch.equal(layer.weight, layer.weight_grid(original))
    assert torch.equal(layer.rounded, layer.weight)
    layer.tap.enabled = False
    assert torch.equal(layer(random(3, 6)), nn.functional.linear(random(3, 6), layer.weight, layer.bias))


def test_without_a_grid_the_rounded_weight_is_the_weight() -> None:
    layer = wrap(nn.Linear(6, 4))
    assert layer.rounded is layer.weight


def test_adopted_integers_need_not_be_the_nearest() -> None:
    layer = wrap(nn.Linear(6, 4, bias=False))
    original = layer.weight.detach().clone()
    grid = min_max_per_channel(layer.weight, 4)
    integers = (15 - grid.quantize(original)).to(torch.uint8)
    layer.adopt(grid, integers)
    assert layer.weight_grid is grid
    assert torch.equal(layer.weight, original)
    assert torch.equal(layer.rounded, grid.dequantize(integers.float()))
    assert torch.equal(layer(random(3, 6)), nn.functional.linear(random(3, 6), layer.rounded))
    layer.fold()
    assert torch.equal(layer.weight, grid.dequantize(integers.float()))


def test_the_weight_being_learned_takes_the_place_of_the_rounded_one() -> None:
    layer = wrap(nn.Linear(6, 4))
    full_precision = layer(random(3, 6))
    layer.weight_grid = min_max_per_channel(layer.weight, 4)
    rounded = layer(random(3, 6))
    layer.learned = torch.full((4, 6), 0.5, requires_grad=True)
    found = layer(random(3, 6))
    assert torch.equal(found, nn.functional.linear(random(3, 6), torch.full((4, 6), 0.5), layer.bias))
    found.sum().backward()
    assert torch.equal(layer.learned.grad, random(3, 6).sum(0).expand(4, 6))
    layer.tap.enabled = False
    assert torch.equal(layer(random(3, 6)), full_precision)
    layer.tap.enabled, layer.learned = True, None
    assert torch.equal(layer(random(3, 6)), rounded)


UP_BLOCKS: dict[str, tuple[type[nn.Module], dict[str, int]]] = {
    "UpBlock2D": (UNet2DModel, {}),
    "AttnUpBlock2D": (UNet2DModel, {}),
    "ResnetUpsampleBlock2D": (UNet2DModel, {}),
    "CrossAttnUpBlock2D": (UNet2DConditionModel, {"cross_attention_dim": 6}),
}


@pytest.mark.parametrize("block", UP_BLOCKS)
def test_the_shortcut_of_every_up_block_can_be_split(block: str) -> None:
    unet_class, options = UP_BLOCKS[block]
    unet = unet_class(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(4, 6),
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=(block, block),
        **options,
    )
    splits = unet_structure(unet).splits
    assert len(splits) == 4
    for name, index in splits.items():
        convolution = unet.get_submodule(name)
        channels = convolution.in_channels
        x = random(2, channels, 5, 5)
        x[:, index:] *= 100
        layer = QuantLayer(convolution, LayerBits(3, 4), index)
        weight, bias = layer.weight.detach().clone(), layer.bias
        halves = [min_max_per_channel(part, 3) for part in (weight[:, :index], weight[:, index:])]
        inputs = [grid_from_range(part.min(), part.max(), 4) for part in (x[:, :index], x[:, index:])]
        layer.weight_grid, layer.input_grid = SplitGrid(index, *halves), SplitGrid(index, *inputs)
        rounded_weight = torch.cat([halves[0](weight[:, :index]), halves[1](weight[:, index:])], dim=1)
        rounded_x = torch.cat([inputs[0](x[:, :index]), inputs[1](x[:, index:])], dim=1)
        wanted = nn.functional.conv2d(rounded_x, rounded_weight, bias)
        for _ in range(2):
            assert torch.equal(layer(x), wanted)
            layer.fold()


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_with_other_than_zeros_is_refused(mode: str) -> None:
    with pytest.raises(StageError, match=f"padding mode '{mode}' cannot be quantized"):
        wrap(nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode))


@pytest.mark.parametrize("original", [nn.ConvTranspose2d(2, 2, 3), nn.GroupNorm(1, 2), nn.Bilinear(2, 2, 2)])
def test_other_layers_are_refused(original: nn.Module) -> None:
    assert not is_quantizable(original)
    with pytest.raises(StageError, match=f"{type(original).__name__} is not a layer that can be quantized"):
        wrap(original)


def test_what_is_quantizable_is_known_by_its_exact_type() -> None:
    class Scaled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    assert all(is_quantizable(each) for each in (nn.Linear(1, 1), nn.Conv1d(1, 1, 1), nn.Conv2d(1, 1, 1)))
    assert not any(is_quantizable(each) for each in (Scaled(1, 1), nn.Conv3d(1, 1, 1), wrap(nn.Linear(1, 1))))
