"""Packed checkpoints that are damaged, of something else, or made up: each is refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.errors import DataError
from qbench.quant import (
    AffineGrid,
    DynamicGrid,
    QuantModel,
    SplitGrid,
    StepGrid,
    WeightRanges,
    set_weight_grids,
)
from qbench.quant.packing import checksum, load_input_grids, load_weights, save_input_grids, save_weights

STRUCTURE = Structure(boundary_layers=("0", "2"), splits={"0": 2})
LOADERS = {"packed-weights": load_weights, "input-grids": load_input_grids}
FOUR = AffineGrid(4, torch.tensor(0.1), torch.tensor(3.0))


def empty(norm: int = 4, width: int = 6, layers: int = 1) -> QuantModel:
    """A convolution whose input is a concatenation, a norm and linear layers, none of which is ever called."""
    torch.manual_seed(0)
    linear = [nn.Linear(width, 3, bias=False) for _ in range(layers)]
    module = nn.Sequential(nn.Conv2d(5, 4, 3), nn.GroupNorm(1, norm), *linear)
    return QuantModel(module.requires_grad_(False), STRUCTURE, BitWidth(4, 8))


def quantized(**options: int) -> QuantModel:
    """Such a model with grids of each kind on its inputs: split, one for each step, one for all, dynamic."""
    model = empty(**options)
    set_weight_grids(model, WeightRanges(), split=True)
    grids = [SplitGrid(2, FOUR, FOUR), StepGrid(8, torch.tensor([0.1, 0.2]), torch.tensor([3.0, 200.0]))]
    for name, grid in zip(model.taps, [*grids, FOUR, DynamicGrid(8, 1)], strict=False):
        model.taps[name].grid = grid
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.safetensors"


def refusal(load: Callable[[QuantModel, Path], None], path: Path, model: QuantModel | None = None) -> str:
    """Return the sentence with which a loader refuses a file."""
    with pytest.raises(DataError) as caught:
        load(model or empty(), path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path)).strip()


def refused(path: Path) -> str:
    """Return the sentence with which both loaders refuse a file."""
    first, second = (refusal(load, path).replace(kind, "KIND") for kind, load in LOADERS.items())
    assert first == second
    return first


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> None:
    """Change the grids' configurations and the tensors that a file holds."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["qbench"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    change(header["grids"], tensors)
    header["checksum"] = checksum(header["grids"], tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"qbench": json.dumps(header)})


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
@pytest.mark.parametrize("save", [save_weights, save_input_grids])
def test_a_truncated_file_is_refused(path: Path, save: Callable[..., None], keep: int) -> None:
    save(quantized(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert refused(path).startswith("cannot be read as a packed checkpoint")


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip file", b"\x80\x04 a pickle", b"{}", bytes(99), b"\xff" * 99])
def test_a_file_that_is_no_checkpoint_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refused(path).startswith("cannot be read as a packed checkpoint")


def test_a_missing_file_is_told(path: Path, tmp_path: Path) -> None:
    for missing in (path, tmp_path):
        assert refused(missing).startswith("cannot be read as a packed checkpoint")


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"qbench": '{"format": "qbench-packed-weights-1"}'}, {"qbench": "[]"}]
)
def test_a_foreign_checkpoint_is_refused(path: Path, metadata: dict[str, str] | None) -> None:
    save_file(nn.Linear(3, 3).state_dict(), path, metadata=metadata)
    assert refused(path) == "is not a file of the format qbench-KIND-3"


@pytest.mark.parametrize("grids", [..., None, [], "no mapping", {"0": 3}, {"0": None}, {"0": ["affine", 4]}])
def test_a_damaged_layout_is_refused(path: Path, grids: object) -> None:
    for kind, load in LOADERS.items():
        header = {"format": f"qbench-{kind}-3"} | ({} if grids is ... else {"grids": grids})
        save_file(nn.Linear(3, 3).state_dict(), path, metadata={"qbench": json.dumps(header)})
        assert refusal(load, path) == "does not say which grids it holds"


@pytest.mark.parametrize("header", ["no json", "", "[" * 100_000, '{"grids":' * 100_000])
def test_a_header_that_is_no_json_is_refused(path: Path, header: str) -> None:
    """Or that is nested deeper than anything can be read."""
    save_file(nn.Linear(3, 3).state_dict(), path, metadata={"qbench": header})
    assert refused(path).startswith("cannot be read as a packed checkpoint")


def test_a_file_of_weights_is_no_file_of_input_grids(path: Path) -> None:
    save_weights(quantized(), path)
    assert refusal(load_input_grids, path) == "is not a file of the format qbench-input-grids-3"
    save_input_grids(quantized(), path)
    assert refusal(load_weights, path) == "is not a file of the format qbench-packed-weights-3"


@pytest.mark.parametrize("save", [save_weights, save_input_grids])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(position=0.0, bit=0)
@example(position=0.0, bit=7)
@example(position=0.999, bit=3)
def test_a_flipped_bit_is_refused_or_harmless(path: Path, save: Callable[..., None], position: float, bit: int) -> None:
    load = load_weights if save is save_weights else load_input_grids
    stored, loaded, sound = quantized(), empty(), empty()
    save(stored, path)
    load(sound, path)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        load(loaded, path)
    except DataError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert "\n" not in message
        return
    for name, layer in loaded.layers.items():
        assert torch.equal(layer.rounded, sound.layers[name].rounded)
        for found, wanted in zip(loaded.taps.values(), sound.taps.values(), strict=True):
            assert (found.grid is None) == (wanted.grid is None)
            assert found.grid is None or found.grid.config() == wanted.grid.config()


@pytest.mark.parametrize("save", [save_weights, save_input_grids])
def test_an_altered_value_is_refused(path: Path, save: Callable[..., None]) -> None:
    """Whatever it means: a bit of the last bytes, which are no header, in every place."""
    save(quantized(), path)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for position in range(start, len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        load = load_weights if save is save_weights else load_input_grids
        assert refusal(load, path) == "is damaged or was altered: it does not hold what its checksum was taken of"


AFFINE, SPLIT = "2", "0"
BAD_WEIGHTS: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], None]] = {
    "bits as text": lambda grids, tensors: grids[AFFINE].update(bits="4"),
    "bits with a point": lambda grids, tensors: grids[AFFINE].update(bits=4.0),
    "bits true": lambda grids, tensors: grids[AFFINE].update(bits=True),
    "no bits": lambda grids, tensors: grids[AFFINE].pop("bits"),
    "bits null": lambda grids, tensors: grids[AFFINE].update(bits=None),
    "1 bit": lambda grids, tensors: grids[AFFINE].update(bits=1),
    "5 bits": lambda grids, tensors: grids[AFFINE].update(bits=5),
    "9 bits": lambda grids, tensors: grids[AFFINE].update(bits=9),
    "16 bits": lambda grids, tensors: grids[AFFINE].update(bits=16),
    "split of 16 bits": lambda grids, tensors: grids[SPLIT].update(bits=16),
    "unknown kind": lambda grids, tensors: grids[AFFINE].update(kind="logarithmic"),
    "no kind": lambda grids, tensors: grids[AFFINE].pop("kind"),
    "a kind for inputs": lambda grids, tensors: grids[AFFINE].update(kind="steps"),
    "another kind for inputs": lambda grids, tensors: grids[AFFINE].update(kind="dynamic", axes=1),
    "a split that is none": lambda grids, tensors: grids[AFFINE].update(kind="split", index=2),
    "no split that is one": lambda grids, tensors: grids[SPLIT].update(kind="affine"),
    "index 0": lambda grids, tensors: grids[SPLIT].update(index=0),
    "index behind the last": lambda grids, tensors: grids[SPLIT].update(index=5),
    "index below 0": lambda grids, tensors: grids[SPLIT].update(index=-1),
    "index as text": lambda grids, tensors: grids[SPLIT].update(index="2"),
    "no index": lambda grids, tensors: grids[SPLIT].pop("index"),
    "a layer that is not there": lambda grids, tensors: grids.update({"7": grids.pop(AFFINE)}),
    "one layer more": lambda grids, tensors: grids.update({"7": grids[AFFINE]}),
    "one layer less": lambda grids, tensors: grids.pop(AFFINE),
    "no scale": lambda grids, tensors: tensors.pop("2.scale"),
    "no zero point": lambda grids, tensors: tensors.pop("0.zero_point"),
    "no integers": lambda grids, tensors: tensors.pop("0.packed"),
    "no bias": lambda grids, tensors: tensors.pop("0.bias"),
    "one tensor more": lambda grids, tensors: tensors.update(more=torch.ones(1)),
    "integers cut off": lambda grids, tensors: tensors.update({"0.packed": tensors["0.packed"][:-1]}),
    "integers of another type": lambda grids, tensors: tensors.update({"0.packed": tensors["0.packed"].to(torch.int8)}),
    "integers in two dimensions": lambda grids, tensors: tensors.update({"0.packed": tensors["0.packed"][None]}),
    "scale of another shape": lambda grids, tensors: tensors.update({"2.scale": tensors["2.scale"][:2]}),
    "scale of no dimension": lambda grids, tensors: tensors.update({"2.scale": tensors["2.scale"][0, 0]}),
    "scale not a number": lambda grids, tensors: tensors["2.scale"].fill_(float("nan")),
    "scale infinite": lambda grids, tensors: tensors["0.scale"].view(-1)[-1:].fill_(float("inf")),
    "scale 0": lambda grids, tensors: tensors["0.scale"].view(-1)[-1:].fill_(0),
    "scale below 0": lambda grids, tensors: tensors["2.scale"].neg_(),
    "zero point behind the last": lambda grids, tensors: tensors["2.zero_point"].fill_(16),
    "norm of another width": lambda grids, tensors: tensors.update({"1.weight": torch.ones(1)}),
}


@pytest.mark.parametrize("change", BAD_WEIGHTS)
def test_altered_weights_are_refused(path: Path, change: str) -> None:
    save_weights(quantized(), path)
    load_weights(empty(), path)
    rewrite(path, BAD_WEIGHTS[change])
    refusal(load_weights, path)


STEPS, ONE, DYNAMIC = "2", "3", "4"
BAD_INPUTS: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], None]] = {
    "bits as text": lambda grids, tensors: grids[STEPS].update(bits="8"),
    "no bits": lambda grids, tensors: grids[SPLIT].pop("bits"),
    "split of 9 bits": lambda grids, tensors: grids[SPLIT].update(bits=9),
    "fewer bits than the zero point needs": lambda grids, tensors: grids[STEPS].update(bits=7),
    "steps of 9 bits": lambda grids, tensors: grids[STEPS].update(bits=9),
    "bits with a point": lambda grids, tensors: grids[STEPS].update(bits=8.0),
    "unknown kind": lambda grids, tensors: grids[STEPS].update(kind="logarithmic"),
    "one grid for all that is one for each step": lambda grids, tensors: grids[STEPS].update(kind="affine"),
    "no axes": lambda grids, tensors: grids[STEPS].update(kind="dynamic"),
    "axes 0": lambda grids, tensors: grids[DYNAMIC].update(axes=0),
    "axes that reach over the batch": lambda grids, tensors: grids[DYNAMIC].update(axes=4),
    "axes as text": lambda grids, tensors: grids[DYNAMIC].update(axes="1"),
    "axes with a point": lambda grids, tensors: grids[DYNAMIC].update(axes=1.5),
    "axes true": lambda grids, tensors: grids[DYNAMIC].update(axes=True),
    "dynamic with 9 bits": lambda grids, tensors: grids[DYNAMIC].update(bits=9),
    "dynamic bits with a point": lambda grids, tensors: grids[DYNAMIC].update(bits=8.0),
    "dynamic with a scale": lambda grids, tensors: tensors.update({"4.scale": torch.ones(2)}),
    "no index": lambda grids, tensors: grids[SPLIT].pop("index"),
    "index 0": lambda grids, tensors: grids[SPLIT].update(index=0),
    "index below 0": lambda grids, tensors: grids[SPLIT].update(index=-1),
    "index behind the last": lambda grids, tensors: grids[SPLIT].update(index=5),
    "index as text": lambda grids, tensors: grids[SPLIT].update(index="2"),
    "index with a point": lambda grids, tensors: grids[SPLIT].update(index=2.5),
    "an activation that is not there": lambda grids, tensors: grids.update({"7": grids.pop(STEPS)}),
    "one activation less": lambda grids, tensors: grids.pop(STEPS),
    "no scale": lambda grids, tensors: tensors.pop("2.scale"),
    "no zero point": lambda grids, tensors: tensors.pop("0.zero_point"),
    "one tensor more": lambda grids, tensors: tensors.update(more=torch.ones(1)),
    "half a split": lambda grids, tensors: tensors.update({"0.scale": tensors["0.scale"][:1]}),
    "a third half": lambda grids, tensors: tensors.update({"0.scale": torch.ones(3), "0.zero_point": torch.zeros(3)}),
    "a split of an input that is no concatenation's": lambda grids, tensors: (
        grids.update({ONE: grids[SPLIT] | {"index": 7}}),
        tensors.update({f"3.{name}": tensors[f"0.{name}"].clone() for name in ("scale", "zero_point")}),
    ),
    "no steps": lambda grids, tensors: tensors.update({"2.scale": torch.ones(0), "2.zero_point": torch.zeros(0)}),
    "one scale for each channel": lambda grids, tensors: tensors.update(
        {f"0.{name}": tensors[f"0.{name}"].view(2, 1, 1, 1).expand(2, 5, 1, 1) for name in ("scale", "zero_point")}
    ),
    "more scales than zero points": lambda grids, tensors: tensors.update({"2.scale": torch.ones(3)}),
    "scale not a number": lambda grids, tensors: tensors["2.scale"].fill_(float("nan")),
    "scale 0": lambda grids, tensors: tensors["0.scale"].fill_(0),
    "scale of more digits": lambda grids, tensors: tensors.update({"3.scale": tensors["3.scale"].double()}),
    "scale an integer": lambda grids, tensors: tensors.update({"3.scale": torch.tensor(1, dtype=torch.int32)}),
}


@pytest.mark.parametrize("change", BAD_INPUTS)
def test_altered_input_grids_are_refused(path: Path, change: str) -> None:
    save_input_grids(quantized(layers=3), path)
    load_input_grids(empty(layers=3), path)
    rewrite(path, BAD_INPUTS[change])
    refusal(load_input_grids, path, empty(layers=3))


def test_a_split_of_what_has_no_channels_is_refused(path: Path, small_model: Callable[..., QuantModel]) -> None:
    model, name = small_model("image", "W4A8"), "mid_block.attentions.0.q"
    model.taps[name].grid = SplitGrid(1, FOUR, FOUR)
    save_input_grids(model, path)
    message = f"holds a grid of {name!r} split at 1, where there is no such channel"
    assert refusal(load_input_grids, path, small_model("image", "W4A8")) == message


def test_weights_of_another_denoiser_are_refused(path: Path) -> None:
    save_weights(quantized(), path)
    for other in ({"norm": 8}, {"norm": 1}, {"layers": 2}):
        assert refusal(load_weights, path, empty(**other)) == "does not fit this denoiser: it holds other tensors"
    assert refusal(load_weights, path, empty(width=7)) == "holds no integers of 4 bits for the weight of '2'"
    save_weights(quantized(layers=2), path)
    assert refusal(load_weights, path) == "holds the layer '3', which this denoiser has not"
    save_input_grids(quantized(layers=2), path)
    assert refusal(load_input_grids, path) == "holds the activation '3', which this denoiser has not"


def test_a_norm_of_width_one_does_not_fill_a_wide_one(path: Path) -> None:
    model = empty(norm=1)
    save_weights(model, path)
    assert refusal(load_weights, path) == "does not fit this denoiser: it holds other tensors"


def test_dynamic_grids_have_no_tensors(path: Path) -> None:
    model, loaded = empty(), empty()
    model.taps["2"].grid = DynamicGrid(8, 1)
    save_input_grids(model, path)
    load_input_grids(loaded, path)
    assert loaded.taps["2"].grid == DynamicGrid(8, 1)
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == []


def test_the_grid_of_a_weight_may_be_one_for_all_channels(path: Path) -> None:
    model, loaded = empty(), empty()
    for layer in model.layers.values():
        layer.weight_grid = FOUR
    save_weights(model, path)
    load_weights(loaded, path)
    for name, layer in loaded.layers.items():
        assert torch.equal(layer.rounded, model.layers[name].rounded)
