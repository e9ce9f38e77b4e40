"""A method's own modules in the place of layers: in force where layers are quantized, stored, and loaded again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from qbench.errors import DataError
from qbench.quant import DynamicGrid, QuantModel, WeightRanges, set_weight_grids
from qbench.quant.packing import REPLACED_FORMAT, checksum, load_weights, save_weights

pytestmark = pytest.mark.usefixtures("fake_plugins")
REPLACED = ("conv_in", "time_embedding.linear_1", "down_blocks.0.downsamplers.0.conv")


@pytest.fixture
def gridded(small_model: Callable[..., QuantModel]) -> QuantModel:
    """All layers on their grids."""
    model = small_model(bits="W4A32")
    set_weight_grids(model, WeightRanges())
    return model


@pytest.fixture
def replaced(small_model: Callable[..., QuantModel]) -> QuantModel:
    """Three layers replaced by tables of the same integers; one of them is held under two names."""
    from micro_layers import table

    model = small_model(bits="W4A32")
    set_weight_grids(model, WeightRanges())
    for name in REPLACED:
        model.layers[name].replace(table(model.layers[name], 4))
    return model


def estimate(model: QuantModel) -> torch.Tensor:
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    return model(x, torch.tensor([10, 500]))


def test_it_computes_where_the_layer_is_quantized_and_only_there(replaced: QuantModel, gridded: QuantModel) -> None:
    torch.testing.assert_close(estimate(replaced), estimate(gridded), rtol=0, atol=1e-6)
    for model in (replaced, gridded):
        with model.full_precision():
            model.expected = estimate(model)  # type: ignore[attr-defined]
    assert torch.equal(replaced.expected, gridded.expected)  # type: ignore[attr-defined]
    assert not torch.allclose(estimate(replaced), replaced.expected, atol=1e-3)  # type: ignore[attr-defined]
    with replaced.quantizing_only(REPLACED), gridded.quantizing_only(REPLACED):
        torch.testing.assert_close(estimate(replaced), estimate(gridded), rtol=0, atol=1e-6)


def test_coverage_counts_it_and_freezing_lets_go_of_the_weight(replaced: QuantModel) -> None:
    assert replaced.left_out() == []
    before = estimate(replaced)
    replaced.freeze()
    assert torch.equal(estimate(replaced), before)
    assert all(replaced.layers[name].weight.numel() == 0 for name in REPLACED)


def test_its_input_is_rounded_by_the_tap_and_seen_by_observers(small_model: Callable[..., QuantModel]) -> None:
    from micro_layers import table

    model = small_model(bits="W4A4")
    layer = model.layers["conv_in"]
    layer.replace(table(layer, 4))
    plain = estimate(model)
    seen: list[str] = []
    with model.observing(lambda name: lambda x: seen.append(name)):
        estimate(model)
    assert seen.count("conv_in") == 1
    assert "conv_in" in model.left_out()
    layer.input_grid = DynamicGrid(4, 3)
    assert "conv_in" not in model.left_out()
    assert not torch.equal(estimate(model), plain)
    layer.input_grid = None
    assert layer.replacement is not None
    layer.replacement.input_bits = 4  # as a kernel has it that rounds its input itself
    assert "conv_in" not in model.left_out()


@pytest.mark.parametrize("way", ["weight_grid", "adopt"])
def test_a_grid_takes_its_place_again(replaced: QuantModel, gridded: QuantModel, way: str) -> None:
    layer, other = replaced.layers["conv_in"], gridded.layers["conv_in"]
    assert other.weight_grid is not None
    if way == "adopt":
        layer.adopt(other.weight_grid, other.weight_grid.quantize(other.rounded))
    else:
        layer.weight_grid = other.weight_grid
    assert layer.replacement is None
    assert torch.equal(layer.rounded, other.rounded)


def test_it_is_stored_and_loaded_to_the_bit(
    replaced: QuantModel, small_model: Callable[..., QuantModel], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(replaced, path)
    loaded = small_model(bits="W4A32")
    for parameter in loaded.module.parameters():
        parameter.data.zero_()
    load_weights(loaded, path)
    assert torch.equal(estimate(loaded), estimate(replaced))
    assert loaded.left_out() == []
    save_weights(loaded, tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    tensors = read(path)[1]
    assert "conv_in.weight" not in tensors  # the size that tables show is that of what replaces it
    assert tensors["conv_in.replacement.integers"].dtype == torch.uint8


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["qbench"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda header, tensors: header["replaced"]["conv_in"].update(kind="micro-tabel"),
            "unknown layer 'micro-tabel': did you mean 'micro-table'",
        ),
        (lambda header, tensors: header["replaced"]["conv_in"].pop("kind"), "unknown layer 'None'"),
        (lambda header, tensors: header["replaced"]["conv_in"].update(kind="micro-gone"), "cannot be imported"),
        (lambda header, tensors: header["replaced"]["conv_in"].update(bits="x"), "does not fit this denoiser"),
        (lambda header, tensors: tensors.pop("conv_in.replacement.scale"), "does not fit this denoiser"),
        (
            lambda header, tensors: tensors.update({"conv_in.replacement.integers": torch.zeros(1).byte()}),
            "its table is for another layer",
        ),
        (lambda header, tensors: header["replaced"].update(other={}), "the layer 'other', which this denoiser has not"),
        (lambda header, tensors: header.update(replaced=[]), "does not say which grids it holds"),
        (
            lambda header, tensors: header["replaced"].update({"conv_out": header["grids"]["conv_out"]}),
            "holds the layer 'conv_out' twice",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_file_and_the_layer(
    replaced: QuantModel,
    small_model: Callable[..., QuantModel],
    change: Callable[[Any, Any], None],
    told: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(replaced, path)
    header, tensors = read(path)
    change(header, tensors)
    header["checksum"] = checksum({key: header[key] for key in ("grids", "replaced")}, tensors)
    save_file(tensors, path, metadata={"qbench": json.dumps(header)})
    with pytest.raises(DataError, match=told) as caught:
        load_weights(small_model(bits="W4A32"), path)
    assert str(path) in str(caught.value)


def test_the_checksum_is_of_the_configuration_too(
    replaced: QuantModel, small_model: Callable[..., QuantModel], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(replaced, path)
    header, tensors = read(path)
    assert header["format"] == REPLACED_FORMAT
    header["replaced"]["conv_in"]["bits"] = 3
    save_file(tensors, path, metadata={"qbench": json.dumps(header)})
    with pytest.raises(DataError, match="is damaged or was altered"):
        load_weights(small_model(bits="W4A32"), path)
