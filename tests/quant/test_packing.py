import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.diffusion.unet_structure import unet_structure
from qbench.quant import (
    ActivationRanges,
    AffineGrid,
    CalibrationData,
    DynamicGrid,
    QuantModel,
    SplitGrid,
    StepGrid,
    WeightRanges,
    min_max_per_channel,
    set_input_grids,
    set_weight_grids,
)
from qbench.quant.packing import (
    load_input_grids,
    load_weights,
    pack_bits,
    save_input_grids,
    save_weights,
    unpack_bits,
)
from qbench.zoo.networks import load_tiny_ddim

T = torch.tensor([3, 700])
STEPS = torch.tensor([0, 1])


def denoiser(seed: int = 0) -> UNet2DModel:
    torch.manual_seed(seed)
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
    ).requires_grad_(False)


def empty(bits: int = 4, seed: int = 1, softmax: int | None = None) -> QuantModel:
    """A model to load into: other weights, no grids."""
    module = denoiser(seed=seed).eval()
    return QuantModel(module, unet_structure(module), BitWidth(bits, 8, softmax), boundary_bits=8)


@cache
def full_precision() -> Tensor:
    found: Tensor = denoiser().eval()(images(), T).sample
    return found


def quantized(bits: int = 4, split: bool = False) -> QuantModel:
    model = empty(bits, seed=0)
    set_weight_grids(model, WeightRanges(), split)
    return model


def calibrated(granularity: str, split: bool = False) -> QuantModel:
    """A model with a grid of 16 bits for the softmax and of 8 for other activations."""
    model = empty(seed=0, softmax=16)
    set_weight_grids(model, WeightRanges())
    data = CalibrationData(images(), T, STEPS, 2, lambda done: None)
    set_input_grids(model, data, ActivationRanges(granularity=granularity), split)
    return model


def wrap(module: nn.Module, bits: int) -> QuantModel:
    """Wrap what is never called."""
    return QuantModel(module.requires_grad_(False), Structure(("0", "0")), BitWidth(bits, 8))


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def contents(path: Path) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Everything that a file holds, in a form that can be compared."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118 (no mapping)
        return file.metadata(), tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


@given(data=st.data(), bits=st.integers(1, 8), count=st.integers(0, 67))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_integers_survive_packing(data: st.DataObject, bits: int, count: int) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    packed = pack_bits(np.array(values, dtype=np.uint8), bits)
    assert packed.dtype == np.uint8
    assert len(packed) == -(-count * bits // 8)
    assert unpack_bits(packed, bits, count).tolist() == values


@pytest.mark.parametrize(
    ("bits", "values", "packed"),
    [
        (1, [1, 0, 1, 1, 0, 0, 0, 1, 1], [0b10110001, 0b10000000]),
        (3, [0b101, 0b010, 0b111], [0b10101011, 0b10000000]),
        (4, [0xA, 0xB, 0xC], [0xAB, 0xC0]),
        (8, [1, 255], [1, 255]),
    ],
)
def test_the_most_significant_bit_comes_first(bits: int, values: list[int], packed: list[int]) -> None:
    assert pack_bits(np.array(values, dtype=np.uint8), bits).tolist() == packed


def test_any_shape_can_be_packed() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for each in (values, values.transpose(2, 0, 1)):
        assert unpack_bits(pack_bits(each, 5), 5, 24).tolist() == each.ravel().tolist()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_a_loaded_model_gives_the_same_bits(bits: int, split: bool, path: Path) -> None:
    frozen = quantized(bits, split)
    splits = [name for name, layer in frozen.layers.items() if isinstance(layer.weight_grid, SplitGrid)]
    assert splits == [name for name in frozen.layers if split and name in frozen.structure.splits]
    save_weights(frozen, path)
    frozen.freeze()
    loaded = empty(bits)
    load_weights(loaded, path)
    with torch.inference_mode():
        wanted = frozen(images(), T)
        assert torch.equal(loaded(images(), T), wanted)
        loaded.freeze()
        assert torch.equal(loaded(images(), T), wanted)
        assert not torch.equal(full_precision(), wanted)


def test_integers_that_are_not_the_nearest_are_kept(path: Path) -> None:
    stored, loaded, nearest = empty(seed=0), empty(), quantized()
    for layer in stored.layers.values():
        grid = min_max_per_channel(layer.weight, layer.bits.weights)
        layer.adopt(grid, grid.levels - 1 - grid.quantize(layer.weight))
    save_weights(stored, path)
    load_weights(loaded, path)
    stored.freeze()
    loaded.freeze()
    for name, layer in loaded.layers.items():
        assert torch.equal(layer.weight, stored.layers[name].weight)
        assert not torch.equal(layer.weight, nearest.layers[name].rounded)


@pytest.mark.parametrize("split", [False, True])
def test_saving_before_and_after_freezing_is_the_same(tmp_path: Path, split: bool) -> None:
    model = quantized(split=split)
    save_weights(model, tmp_path / "before")
    model.freeze()
    save_weights(model, tmp_path / "after")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


@pytest.mark.parametrize("split", [False, True])
def test_saving_what_was_loaded_is_the_same(tmp_path: Path, split: bool) -> None:
    save_weights(quantized(split=split), tmp_path / "first")
    loaded = empty()
    load_weights(loaded, tmp_path / "first")
    save_weights(loaded, tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_the_same_model_gives_the_same_file_to_the_byte(tmp_path: Path) -> None:
    model = wrap(nn.Sequential(nn.Linear(3, 3)), 4)
    model.layers["0"].weight_grid = min_max_per_channel(model.layers["0"].weight, 4)
    model.layers["0"].input_grid = AffineGrid(8, torch.tensor(0.1), torch.tensor(3.0))
    for save in (save_weights, save_input_grids):
        files = []
        for number in range(20):
            save(model, tmp_path / str(number))
            files.append((tmp_path / str(number)).read_bytes())
        assert len(set(files)) == 1


def test_layers_in_full_precision_and_everything_else_are_loaded_too(path: Path) -> None:
    model = quantized()
    model.layers["conv_in"].weight_grid = None
    save_weights(model, path)
    loaded = empty()
    load_weights(loaded, path)
    assert loaded.layers["conv_in"].weight_grid is None
    assert torch.equal(loaded.layers["conv_in"].weight, model.layers["conv_in"].weight)
    assert loaded.layers["conv_out"].weight_grid.bits == 8
    assert torch.equal(loaded.module.conv_norm_out.weight, model.module.conv_norm_out.weight)
    assert torch.equal(loaded.layers["conv_out"].bias, model.layers["conv_out"].bias)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_the_packed_weights_take_their_bits_and_no_more(bits: int, path: Path) -> None:
    model = quantized(bits)
    save_weights(model, path)
    with safe_open(path, framework="pt") as file:
        sizes = {name: file.get_tensor(name).numel() for name in file.keys() if name.endswith(".packed")}  # noqa: SIM118
    for name, layer in model.layers.items():
        assert sizes[f"{name}.packed"] == -(-layer.weight.numel() * layer.bits.weights // 8)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_file_is_about_as_large_as_its_bits(bits: int, path: Path) -> None:
    model = wrap(nn.Sequential(nn.Linear(512, 512, bias=False)), bits)
    model.layers["0"].weight_grid = min_max_per_channel(model.layers["0"].weight, bits)
    save_weights(model, path)
    assert path.stat().st_size == pytest.approx(512 * 512 * bits / 8, rel=0.06)


@pytest.mark.parametrize(("boundary_bits", "split"), [(None, True), (8, False)])
@pytest.mark.parametrize(("bits", "share"), [(4, 0.16), (3, 0.13)])
def test_a_shipped_model_shrinks_as_promised(
    tmp_path: Path, bits: int, share: float, boundary_bits: int | None, split: bool
) -> None:
    module = load_tiny_ddim().requires_grad_(False)
    save_file(module.state_dict(), tmp_path / "full")
    model = QuantModel(module, unet_structure(module), BitWidth(bits, 32), boundary_bits)
    set_weight_grids(model, WeightRanges(), split)
    save_weights(model, tmp_path / "packed")
    assert (tmp_path / "packed").stat().st_size <= share * (tmp_path / "full").stat().st_size


def test_the_files_are_never_a_pickle(path: Path) -> None:
    for save, kind in ((save_weights, "packed-weights"), (save_input_grids, "input-grids")):
        save(calibrated("tensor"), path)
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert json.loads(header["__metadata__"]["qbench"])["format"] == f"qbench-{kind}-3"


@pytest.mark.parametrize(
    ("granularity", "split", "kinds"),
    [
        ("tensor", False, {AffineGrid}),
        ("tensor", True, {AffineGrid, SplitGrid}),
        ("step", False, {StepGrid}),
        ("token", False, {DynamicGrid}),
    ],
)
def test_input_grids_survive(path: Path, granularity: str, split: bool, kinds: set[type]) -> None:
    model = calibrated(granularity, split)
    model.taps["conv_in"].grid = None
    assert {type(tap.grid) for tap in model.taps.values() if tap.grid is not None} == kinds
    save_input_grids(model, path)
    loaded = quantized()
    load_input_grids(loaded, path)
    assert loaded.taps["conv_in"].grid is None
    for name, tap in loaded.taps.items():
        wanted = model.taps[name].grid
        assert tap.grid is None if wanted is None else tap.grid.bits == (16 if name.endswith(".softmax") else 8)
    with torch.inference_mode():
        found = loaded(images(1), T, steps=STEPS)
        assert torch.equal(found, model(images(1), T, steps=STEPS))
        assert not torch.equal(found, quantized()(images(1), T))


def test_layers_may_share_one_input_grid(path: Path) -> None:
    """Queries, keys and values read one input, so a method may give them one grid."""
    one = torch.tensor(0.1)
    for grid in (
        AffineGrid(8, one, one * 30),
        AffineGrid(16, one, torch.tensor(65535.0)),
        SplitGrid(4, AffineGrid(8, one, one * 30), AffineGrid(8, one, one * 30)),
        StepGrid(8, one.expand(3), torch.tensor([3.0, 4.0, 5.0])),
    ):
        model, loaded = quantized(), quantized()
        names = [f"mid_block.attentions.0.to_{letter}" for letter in "qkv"]
        for name in names:
            model.layers[name].input_grid = grid
        save_input_grids(model, path)
        load_input_grids(loaded, path)
        for name in names:
            found = loaded.layers[name].input_grid
            assert found.config() == grid.config()
            assert all(torch.equal(found.tensors()[key], tensor) for key, tensor in grid.tensors().items())


def test_a_layer_under_names_of_different_depth_is_stored_once(path: Path) -> None:
    def make() -> QuantModel:
        torch.manual_seed(0)
        module = nn.Module()
        module.inner = nn.Sequential(nn.Linear(4, 4, bias=False))
        module.head = module.inner[0]
        return QuantModel(module.requires_grad_(False), Structure(("head", "head")), BitWidth(4, 32))

    stored, loaded = make(), make()
    set_weight_grids(stored, WeightRanges())
    save_weights(stored, path)
    load_weights(loaded, path)
    (name,) = stored.layers
    assert torch.equal(loaded.layers[name].rounded, stored.layers[name].rounded)


def test_a_model_in_another_memory_format_can_be_stored(path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 3)).to(memory_format=torch.channels_last)
    model = QuantModel(module.requires_grad_(False), Structure(("0", "1")), BitWidth(4, 32))
    save_weights(model, path)
    load_weights(model, path)


def test_layers_may_share_one_weight_grid(path: Path) -> None:
    model = quantized()
    names = [f"mid_block.attentions.0.to_{letter}" for letter in "qkv"]
    for name in names:
        model.layers[name].weight_grid = model.layers[names[0]].weight_grid
    save_weights(model, path)
    loaded = empty()
    load_weights(loaded, path)
    assert all(torch.equal(loaded.layers[name].rounded, model.layers[name].rounded) for name in names)
