"""What torchao and quanto make of a denoiser: their own numbers, stored and loaded, and an honest coverage."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qbench.bits import BitWidth
from qbench.errors import DataError, StageError
from qbench.method import Method
from qbench.quant import QuantModel
from qbench.quant.packing import load_weights, save_weights
from qbench.stages.inspection import inspect
from qbench_methods.adapter_layers import QuantoLayer, TorchAOLayer
from qbench_methods.quanto import Quanto
from qbench_methods.torchao import TorchAO

torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="needs the optional package torchao")
quanto = pytest.mark.skipif(find_spec("optimum") is None, reason="needs the optional package optimum-quanto")
Create = Callable[..., Method]
SmallModel = Callable[..., QuantModel]


@pytest.fixture
def quantized(small_model: SmallModel, create: Create, one_thread: None) -> Callable[..., QuantModel]:
    """Return a function that lets a method quantize the small UNet, as its stages do."""

    def run(method: type[Method], bits: str, **settings: Any) -> QuantModel:
        made, model = create(method, **settings), small_model(bits=bits)
        assert made.refusal(BitWidth.parse(bits)) is None
        made.quantize_weights(model, None, BitWidth.parse(bits))
        inspect(model, made)
        return model

    return run


Quantized = Callable[..., QuantModel]


def estimate(model: QuantModel, rows: slice = slice(None)) -> torch.Tensor:
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))[rows]
    with torch.inference_mode():
        return model(x, torch.tensor([10, 500, 900])[rows])


def linear_layers(model: QuantModel) -> set[str]:
    return {name for name, layer in model.layers.items() if layer.weight.dim() == 2}


@torchao
@pytest.mark.parametrize("bits", ["W8A32", "W5A32", "W2A32", "W8A8", "W4A8"])
@pytest.mark.parametrize("group_size", [None, 8])
def test_torchao_quantizes_linear_layers_and_coverage_says_so(
    quantized: Quantized, bits: str, group_size: int | None
) -> None:
    model = quantized(TorchAO, bits, group_size=group_size)
    replaced = {name for name, layer in model.layers.items() if layer.replacement is not None}
    divided = {name for name in linear_layers(model) if model.layers[name].weight.shape[1] % (group_size or 1) == 0}
    assert replaced == divided
    assert linear_layers(model) - divided == (set() if group_size is None else linear_layers(model) - divided)
    wanted = set(model.layers) | (set(model.taps) if bits.endswith("A8") else set())
    assert set(model.left_out()) == wanted - replaced


@torchao
@pytest.mark.parametrize("bits", ["W8A32", "W3A32", "W8A8", "W4A8"])
def test_torchaos_layer_is_what_the_library_makes_of_a_linear_layer(quantized: Quantized, bits: str) -> None:
    from torchao import quantization as ao

    model = quantized(TorchAO, bits)
    own = {
        "W8A32": lambda: ao.Int8WeightOnlyConfig(),
        "W3A32": lambda: ao.IntxWeightOnlyConfig(weight_dtype=torch.int3, granularity=ao.PerAxis(0)),
        "W8A8": lambda: ao.Int8DynamicActivationInt8WeightConfig(),
        "W4A8": lambda: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=ao.PerAxis(0)
        ),
    }
    name = "time_embedding.linear_2"
    layer = model.layers[name]
    linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    linear.weight.data, linear.bias.data = layer.weight.clone(), layer.bias.clone()
    ao.quantize_(linear.requires_grad_(False), own[bits]())
    x = torch.randn(6, layer.weight.shape[1])
    assert torch.equal(layer(x), linear(x))
    with model.full_precision():
        plain = layer(x)
    assert 0 < float((layer(x) - plain).abs().max()) < 0.5 * float(plain.abs().max())


@quanto
@pytest.mark.parametrize("bits", ["W8A32", "W4A32", "W2A32"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_quanto_quantizes_what_the_library_does(quantized: Quantized, bits: str, convolutions: bool) -> None:
    from optimum import quanto as library

    model = quantized(Quanto, bits, convolutions=convolutions)
    left = set() if convolutions else set(model.layers) - linear_layers(model)
    assert set(model.left_out()) == left
    for name, kind, x in (
        ("time_embedding.linear_2", library.QLinear, torch.randn(6, 24)),
        ("conv_in", library.QConv2d, torch.randn(2, 2, 8, 8)),
    ):
        layer = model.layers[name]
        if name in left:
            continue
        shape = layer.weight.shape
        plain = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], 3, padding=1)
        plain.weight.data, plain.bias.data = layer.weight.clone(), layer.bias.clone()
        own = kind.from_module(plain.requires_grad_(False), weights=getattr(library, f"qint{bits[1]}"))
        own.freeze()
        torch.testing.assert_close(layer(x), own(x), rtol=0, atol=1e-6)


CASES = [
    pytest.param(TorchAO, bits, {"group_size": size}, marks=torchao)
    for bits in ("W8A32", "W3A32", "W8A8", "W4A8")
    for size in (None, 8)
] + [pytest.param(Quanto, bits, {}, marks=quanto) for bits in ("W8A32", "W4A32", "W2A32")]


@pytest.mark.parametrize(("method", "bits", "settings"), CASES)
def test_it_comes_back_from_a_file_to_the_bit(
    quantized: Quantized, small_model: SmallModel, method: type[Method], bits: str, settings: Any, tmp_path: Path
) -> None:
    model, loaded = quantized(method, bits, **settings), small_model(bits=bits)
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights(loaded, tmp_path / "weights.safetensors")
    expected = estimate(model)
    assert torch.equal(estimate(loaded), expected)
    loaded.freeze()
    assert torch.equal(estimate(loaded), expected)
    save_weights(model, tmp_path / "again.safetensors")
    assert (tmp_path / "weights.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


@pytest.mark.parametrize(("method", "bits", "settings"), CASES)
def test_an_image_does_not_depend_on_its_neighbours(
    quantized: Quantized, method: type[Method], bits: str, settings: Any
) -> None:
    model = quantized(method, bits, **settings)
    layer = model.layers["time_embedding.linear_2"]
    x = torch.randn(3, layer.weight.shape[1]) * torch.tensor([[1.0], [10.0], [0.1]])
    together = layer(x)
    for row in range(3):
        torch.testing.assert_close(layer(x[row : row + 1])[0], together[row], rtol=0, atol=1e-5)


@torchao
def test_torchaos_integers_of_few_bits_are_packed(quantized: Quantized, tmp_path: Path) -> None:
    layers = {bits: quantized(TorchAO, f"W{bits}A32").layers["time_embedding.linear_2"] for bits in (2, 5)}
    for bits, layer in layers.items():
        assert layer.replacement is not None
        parts = layer.replacement.tensors()
        assert parts["qdata"].numel() == -(-layer.weight.numel() * bits // 8)


@torchao
@pytest.mark.parametrize(
    ("config", "tensors", "told"),
    [
        ({"bits": 9}, {}, "weights of 9 bits with inputs of 32 are not offered"),
        ({"input_bits": 4}, {}, "weights of 4 bits with inputs of 4 are not offered"),
        ({"group_size": 5}, {}, "cannot have groups of 5"),
        ({}, {"qdata": torch.zeros(2, dtype=torch.uint8)}, "its qdata is torch.uint8"),
        ({}, {"extra": torch.zeros(2)}, "its tensors are extra, qdata"),
    ],
)
def test_what_is_not_torchaos_is_refused(
    quantized: Quantized, config: dict[str, Any], tensors: dict[str, torch.Tensor], told: str
) -> None:
    layer = quantized(TorchAO, "W4A32").layers["time_embedding.linear_2"]
    assert layer.replacement is not None
    with pytest.raises(ValueError, match=told):
        TorchAOLayer.from_tensors(layer.replacement.config() | config, layer.replacement.tensors() | tensors, layer)


@quanto
def test_what_is_not_quantos_is_refused(quantized: Quantized) -> None:
    layer = quantized(Quanto, "W4A32").layers["conv_in"]
    assert layer.replacement is not None
    for change in ({"bits": 3}, {"input_bits": 8}, {"group_size": 4}):
        with pytest.raises(ValueError, match="are not offered"):
            QuantoLayer.from_tensors(layer.replacement.config() | change, layer.replacement.tensors(), layer)


@pytest.mark.parametrize(
    ("method", "bits", "told"),
    [
        (TorchAO, "W8A4", "torchao quantizes activations to 8 bits only"),
        (TorchAO, "W32A8", "torchao quantizes activations only where it quantizes the weight as well"),
        (Quanto, "W8A8", "quanto does not quantize activations"),
        (Quanto, "W3A32", "quanto quantizes weights to 2, 4, 8 bits only"),
    ],
)
def test_bits_that_a_library_does_not_have_are_refused(
    create: Create, method: type[Method], bits: str, told: str
) -> None:
    assert create(method).refusal(BitWidth.parse(bits)) == told


def test_boundary_bits_that_quanto_does_not_have_are_refused(create: Create, small_model: SmallModel) -> None:
    model = small_model(bits="W4A32", boundary_bits=3)
    with pytest.raises(StageError, match="'conv_in' is to have 3 bits, and quanto has 2, 4, 8: give `boundary_bits`"):
        create(Quanto).quantize_weights(model, None, model.bits)


@pytest.mark.parametrize(("method", "extra"), [(TorchAO, "torchao"), (Quanto, "quanto")])
@pytest.mark.parametrize("error", [ImportError("No module named it"), OSError("libit.so: no such file")])
def test_a_library_that_is_not_there_is_told_with_what_to_install(
    create: Create,
    small_model: SmallModel,
    method: type[Method],
    extra: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str, package: str | None = None) -> Any:
        if name.startswith(("torchao", "optimum")):
            raise error
        return import_module(name, package)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(StageError, match=rf"pip install 'qbench\[{extra}\]'"):
        create(method).quantize_weights(small_model(bits="W8A32"), None, BitWidth.parse("W8A32"))


def test_an_unknown_kind_is_told_from_a_missing_library(small_model: SmallModel, tmp_path: Path) -> None:
    from qbench.quant.replacement import load_replacement

    layer = small_model(bits="W8A32").layers["conv_in"]
    with pytest.raises(DataError, match="unknown layer 'torcha': did you mean 'torchao'"):
        load_replacement({"kind": "torcha"}, {}, layer)
