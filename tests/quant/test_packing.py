import json
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
from qbench.diffusion.structures import DIFFUSERS_UNET
from qbench.errors import DataError
from qbench.quant.grid import AffineGrid
from qbench.quant.model import QuantModel, run_over
from qbench.quant.packing import (
    load_input_grids,
    load_weights,
    pack_bits,
    save_input_grids,
    save_weights,
    unpack_bits,
)
from qbench.quant.ranges import RunningMinMax, min_max_per_channel

T = torch.tensor([3, 700])


def denoiser(widths: tuple[int, int] = (8, 16), seed: int = 0) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=widths,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).requires_grad_(False)


def empty(bits: int = 4, seed: int = 1, widths: tuple[int, int] = (8, 16)) -> QuantModel:
    """A model to load into: other weights, no grids."""
    return QuantModel(denoiser(widths, seed).eval(), DIFFUSERS_UNET, BitWidth(bits, 8), boundary_bits=8)


def quantized(bits: int = 4) -> QuantModel:
    model = empty(bits, seed=0)
    for layer in model.layers.values():
        layer.weight_grid = min_max_per_channel(layer.weight, layer.bits.weights)
    return model


def with_input_grids(model: QuantModel) -> QuantModel:
    ranges = {name: RunningMinMax() for name in model.layers}
    with model.observing(ranges.__getitem__):
        run_over(model, images(), T, 2)
    for name, layer in model.layers.items():
        layer.input_grid = ranges[name].grid(8)
    return model


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


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_a_loaded_model_gives_the_same_bits(bits: int, path: Path) -> None:
    frozen = quantized(bits)
    save_weights(frozen, path)
    frozen.freeze()
    loaded = empty(bits)
    load_weights(loaded, path)
    with torch.inference_mode():
        wanted = frozen(images(), T)
        assert torch.equal(loaded(images(), T), wanted)
        loaded.freeze()
        assert torch.equal(loaded(images(), T), wanted)
        assert not torch.equal(denoiser().eval()(images(), T).sample, wanted)


def test_saving_before_and_after_freezing_is_the_same(tmp_path: Path) -> None:
    model = quantized()
    save_weights(model, tmp_path / "before")
    model.freeze()
    save_weights(model, tmp_path / "after")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_saving_what_was_loaded_is_the_same(tmp_path: Path) -> None:
    save_weights(quantized(), tmp_path / "first")
    loaded = empty()
    load_weights(loaded, tmp_path / "first")
    save_weights(loaded, tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_the_same_model_gives_the_same_file_to_the_byte(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3)).requires_grad_(False)
    model = QuantModel(module, DIFFUSERS_UNET, BitWidth(4, 8))
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
    module = nn.Sequential(nn.Linear(512, 512, bias=False)).requires_grad_(False)
    model = QuantModel(module, DIFFUSERS_UNET, BitWidth(bits, 32))
    model.layers["0"].weight_grid = min_max_per_channel(model.layers["0"].weight, bits)
    save_weights(model, path)
    assert path.stat().st_size == pytest.approx(512 * 512 * bits / 8, rel=0.06)


def test_the_file_is_never_a_pickle(path: Path) -> None:
    save_weights(quantized(), path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["qbench"])["format"] == "qbench-packed-weights-1"


def test_input_grids_survive(path: Path) -> None:
    model = with_input_grids(quantized())
    model.layers["conv_in"].input_grid = None
    save_input_grids(model, path)
    loaded = quantized()
    load_input_grids(loaded, path)
    assert loaded.layers["conv_in"].input_grid is None
    with torch.inference_mode():
        assert torch.equal(loaded(images(1), T), model(images(1), T))


@pytest.mark.parametrize("per_channel", [False, True])
def test_layers_may_share_one_input_grid(path: Path, per_channel: bool) -> None:
    """Queries, keys and values read one input, so a method may give them one grid."""
    model = quantized()
    one = torch.full((1, 1, 16) if per_channel else (), 0.1)
    grid = AffineGrid(8, one, one * 30)
    names = [f"mid_block.attentions.0.to_{letter}" for letter in "qkv"]
    for name in names:
        model.layers[name].input_grid = grid
    save_input_grids(model, path)
    loaded = quantized()
    load_input_grids(loaded, path)
    for name in names:
        assert torch.equal(loaded.layers[name].input_grid.scale, grid.scale)


def test_layers_may_share_one_weight_grid(path: Path) -> None:
    model = quantized()
    names = [f"mid_block.attentions.0.to_{letter}" for letter in "qkv"]
    for name in names:
        model.layers[name].weight_grid = model.layers[names[0]].weight_grid
    save_weights(model, path)
    loaded = empty()
    load_weights(loaded, path)
    model.freeze()
    assert all(torch.equal(loaded.layers[name].weight, model.layers[name].weight) for name in names)


def refused(model: QuantModel, path: Path) -> str:
    """Return the sentence with which both loaders refuse a file."""
    messages = []
    for load, kind in ((load_weights, "packed-weights"), (load_input_grids, "input-grids")):
        with pytest.raises(DataError) as caught:
            load(model, path)
        messages.append(str(caught.value).replace(kind, "KIND"))
    assert messages[0] == messages[1]
    assert str(path) in messages[0]
    assert "\n" not in messages[0]
    return messages[0]


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(path: Path, keep: int) -> None:
    save_weights(quantized(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read as a packed checkpoint" in refused(empty(), path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip file", b"\x80\x04 a pickle", b"{}", bytes(99), b"\xff" * 99])
def test_a_file_that_is_no_checkpoint_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(empty(), path)


def test_a_missing_file_is_told(path: Path, tmp_path: Path) -> None:
    refused(empty(), path)
    refused(empty(), tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "qbench-packed-0", "layers": "{}"}])
def test_a_foreign_checkpoint_is_refused(path: Path, metadata: dict[str, str] | None) -> None:
    save_file(denoiser().state_dict(), path, metadata=metadata)
    assert "is not a file of the format qbench-KIND-1" in refused(empty(), path)


@pytest.mark.parametrize("layers", [None, "no json", "[]", '{"conv_in": 3}', '{"conv_in": {"bits": 4}}'])
def test_a_damaged_layout_is_refused(path: Path, layers: str | None) -> None:
    metadata = {"format": "qbench-packed-1"} | ({} if layers is None else {"layers": layers})
    save_file(denoiser().state_dict(), path, metadata=metadata)
    with pytest.raises(DataError):
        load_weights(empty(), path)


def test_weights_of_a_model_of_another_width_are_refused(path: Path) -> None:
    save_weights(quantized(), path)
    with pytest.raises(DataError, match="fits this denoiser"):
        load_weights(empty(widths=(16, 16)), path)


@pytest.mark.parametrize("width", [1, 4])
def test_unquantized_tensors_of_another_width_are_refused(path: Path, width: int) -> None:
    """A norm of width 1 must not silently fill one of width 8 either."""

    def normed(width: int) -> QuantModel:
        module = nn.Sequential(nn.Linear(3, 3), nn.GroupNorm(1, width))
        return QuantModel(module.requires_grad_(False), DIFFUSERS_UNET, BitWidth(4, 8))

    save_weights(normed(width), path)
    with pytest.raises(DataError):
        load_weights(normed(8), path)


def test_weights_of_a_model_with_more_or_fewer_layers_are_refused(path: Path) -> None:
    def chain(count: int) -> QuantModel:
        module = nn.Sequential(*(nn.Linear(3, 3) for _ in range(count))).requires_grad_(False)
        model = QuantModel(module, DIFFUSERS_UNET, BitWidth(4, 8))
        for layer in model.layers.values():
            layer.weight_grid = min_max_per_channel(layer.weight, 4)
            layer.input_grid = AffineGrid(8, torch.tensor(0.1), torch.tensor(3.0))
        return model

    save_weights(chain(2), path)
    for count in (1, 3):
        with pytest.raises(DataError, match="denoiser"):
            load_weights(chain(count), path)
    save_input_grids(chain(2), path)
    with pytest.raises(DataError, match=r"holds the layer '1', which this denoiser has not"):
        load_input_grids(chain(1), path)


def test_a_file_of_weights_is_no_file_of_input_grids(path: Path) -> None:
    save_weights(quantized(), path)
    with pytest.raises(DataError):
        load_input_grids(empty(), path)


def test_a_file_of_input_grids_is_no_file_of_weights(path: Path) -> None:
    save_input_grids(with_input_grids(quantized()), path)
    with pytest.raises(DataError):
        load_weights(empty(), path)


@pytest.mark.parametrize("part", ["scale", "zero_point", "packed"])
def test_a_file_that_lacks_a_part_is_refused(path: Path, part: str) -> None:
    save_weights(quantized(), path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != f"conv_in.{part}"}  # noqa: SIM118
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(DataError):
        load_weights(empty(), path)
