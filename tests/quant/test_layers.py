import pytest
import torch
from torch import Tensor, nn

from qbench.errors import StageError
from qbench.quant.grid import AffineGrid, grid_from_range
from qbench.quant.layers import LayerBits, QuantLayer, is_quantizable
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


def test_stored_integers_are_adopted_folded() -> None:
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
    layer.observer = seen.append
    x = random(3, 6)
    layer(x)
    assert len(seen) == 1
    assert torch.equal(seen[0], random(3, 6))
    assert torch.equal(x, random(3, 6))


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
