import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.method import CalibrationData, UniformSteps
from qbench.plugins import METHODS, Entry
from qbench.quant import ActivationRanges, QuantModel, WeightRanges, set_input_grids, set_weight_grids
from qbench.settings import merged, validate
from qbench_methods.linear import Linear, LinearSettings


class Net(nn.Module):
    """Three layers; the middle one takes the timestep in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        hidden = torch.relu(self.first(x)) + timestep[:, None, None, None] / 500 - 1
        return (self.last(torch.relu(self.middle(hidden))),)


def make(bits: str = "W4A8", boundary_bits: int | None = None) -> QuantModel:
    structure = Structure(boundary_layers=("first", "last"))
    return QuantModel(Net().requires_grad_(False), structure, BitWidth.parse(bits), boundary_bits)


def data(batch_size: int = 5, count: int = 32) -> CalibrationData:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(count, 2, 6, 6, generator=random)
    steps = torch.arange(count) % 4
    return CalibrationData(x, 999 - 300 * steps, steps, batch_size, lambda done: None)


@pytest.fixture
def small_attention() -> QuantModel:
    """One attention over pixels, whose softmax output has 16 bits."""

    class AttentionNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = Attention(4, heads=2, dim_head=3)

        def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (self.attn(x),)

    structure = Structure(boundary_layers=("attn.to_q", "attn.to_out.0"))
    return QuantModel(AttentionNet().eval().requires_grad_(False), structure, BitWidth.parse("W4A8S16"))


@pytest.fixture
def linear() -> Linear:
    return Linear(Entry("linear", "qbench", "0", "here:there"), LinearSettings())


@pytest.mark.parametrize("bits", ["W2A32", "W4A8", "W8A8"])
def test_each_output_channel_is_rounded_between_its_extremes(linear: Linear, bits: str) -> None:
    model = make(bits)
    linear.quantize_weights(model, None, model.bits)
    for layer in model.layers.values():
        assert layer.weight_grid is not None
        for channel, weight in enumerate(layer.weight):
            low, high = min(0.0, float(weight.min())), max(0.0, float(weight.max()))
            scale = (high - low) / (2**model.bits.weights - 1)
            zero_point = round(-low / scale)
            assert float(layer.weight_grid.scale[channel]) == pytest.approx(scale, rel=1e-5)
            assert float(layer.weight_grid.zero_point[channel]) == zero_point
            integers = (torch.round(weight / scale) + zero_point).clamp(0, 2**model.bits.weights - 1)
            torch.testing.assert_close(
                layer.weight_grid(layer.weight)[channel], (integers - zero_point) * scale, rtol=1e-4, atol=1e-6
            )


def test_weights_get_the_bits_of_their_layer(linear: Linear) -> None:
    model = make("W4A8", boundary_bits=8)
    linear.quantize_weights(model, None, model.bits)
    assert {name: layer.weight_grid.bits for name, layer in model.layers.items()} == {
        "first": 8,
        "middle": 4,
        "last": 8,
    }
    assert all(layer.input_grid is None for layer in model.layers.values())


@pytest.mark.parametrize("bits", ["W32A8", "W32A32"])
def test_weights_of_32_bits_are_left_alone(linear: Linear, bits: str) -> None:
    model = make(bits)
    linear.quantize_weights(model, None, model.bits)
    assert all(layer.weight_grid is None for layer in model.layers.values())


def test_the_weight_of_a_layer_of_32_bits_is_left_alone(linear: Linear) -> None:
    model = make("W4A8", boundary_bits=32)
    linear.quantize_weights(model, None, model.bits)
    assert [name for name, layer in model.layers.items() if layer.weight_grid is None] == ["first", "last"]


def test_inputs_of_32_bits_are_left_alone(linear: Linear) -> None:
    model = make("W4A32")
    linear.quantize_activations(model, data(), model.bits)
    assert all(layer.input_grid is None for layer in model.layers.values())


def extremes(model: QuantModel) -> dict[str, tuple[float, float]]:
    """The extremes of every layer's input over all calibration data, taken at once, 0 included."""
    inputs: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0]))
        for name, layer in model.layers.items()
    ]
    given = data()
    model(given.x, given.timesteps)
    for hook in hooks:
        hook.remove()
    return {name: (min(0.0, float(x.min())), max(0.0, float(x.max()))) for name, x in inputs.items()}


@pytest.mark.parametrize("bits", ["W32A8", "W4A8", "W2A4"])
def test_inputs_are_rounded_between_the_extremes_of_all_calibration_data(linear: Linear, bits: str) -> None:
    model = make(bits)
    linear.quantize_weights(model, None, model.bits)
    model.freeze()
    true = extremes(model)
    linear.quantize_activations(model, data(), model.bits)
    for name, layer in model.layers.items():
        low, high = true[name]
        assert layer.input_grid is not None
        assert layer.input_grid.bits == model.bits.activations
        assert layer.input_grid.scale.shape == ()
        scale = (high - low) / (2**model.bits.activations - 1)
        assert float(layer.input_grid.scale) == pytest.approx(scale, rel=1e-4)
        assert float(layer.input_grid.zero_point) == pytest.approx(-low / scale, abs=0.51)


def test_ranges_are_those_of_the_network_with_quantized_weights(linear: Linear) -> None:
    """The first layer's input is given; behind it ranges move with the weights."""
    scales = {}
    for bits in ("W32A8", "W2A8"):
        model = make(bits)
        linear.quantize_weights(model, None, model.bits)
        linear.quantize_activations(model, data(), model.bits)
        scales[bits] = {name: float(layer.input_grid.scale) for name, layer in model.layers.items()}
    assert scales["W32A8"]["first"] == scales["W2A8"]["first"]
    assert scales["W32A8"]["last"] != pytest.approx(scales["W2A8"]["last"], rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100])
def test_ranges_do_not_depend_on_the_batch_size(linear: Linear, batch_size: int) -> None:
    grids = []
    for size in (5, batch_size):
        model = make("W4A8")
        linear.quantize_weights(model, None, model.bits)
        linear.quantize_activations(model, data(size), model.bits)
        grids.append({name: layer.input_grid for name, layer in model.layers.items()})
    for name in grids[0]:
        torch.testing.assert_close(grids[0][name].scale, grids[1][name].scale, rtol=1e-6, atol=0)
        assert torch.equal(grids[0][name].zero_point, grids[1][name].zero_point)
    assert torch.equal(grids[0]["first"].scale, grids[1]["first"].scale)


def test_every_row_is_reported_and_no_observer_stays(linear: Linear) -> None:
    model, rows = make("W4A8"), []
    given = data()
    linear.quantize_activations(
        model, CalibrationData(given.x, given.timesteps, given.step_indices, 5, rows.append), model.bits
    )
    assert sum(rows) == pytest.approx(1)
    assert len(rows) == 7
    assert all(tap.observer is None for tap in model.taps.values())


def test_the_operands_of_attention_are_quantized_too(linear: Linear, small_attention: QuantModel) -> None:
    x = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    steps = torch.arange(8) % 4
    given = CalibrationData(x, 999 - 300 * steps, steps, 4, lambda done: None)
    linear.quantize_weights(small_attention, None, small_attention.bits)
    linear.quantize_activations(small_attention, given, small_attention.bits)
    assert small_attention.left_out() == []
    assert {name: tap.grid.bits for name, tap in small_attention.attentions["attn"].by_name("attn").items()} == {
        "attn.q": 8,
        "attn.k": 8,
        "attn.softmax": 16,
        "attn.v": 8,
    }


def test_ranges_are_chosen_as_the_settings_say() -> None:
    ranges = {"estimator": "mse", "symmetric": True}
    settings = validate(LinearSettings, {"weights": ranges, "activations": ranges}, str)
    model, by_hand = make("W3A4"), make("W3A4")
    method = Linear(Entry("linear", "qbench", "0", "here:there"), settings)
    method.quantize_weights(model, None, model.bits)
    method.quantize_activations(model, data(), model.bits)
    set_weight_grids(by_hand, WeightRanges(estimator="mse", symmetric=True))
    set_input_grids(by_hand, data(), ActivationRanges(estimator="mse", symmetric=True))
    for name, layer in model.layers.items():
        assert torch.equal(layer.weight_grid.scale, by_hand.layers[name].weight_grid.scale)
        assert torch.equal(layer.input_grid.scale, by_hand.layers[name].input_grid.scale)
        assert float(layer.input_grid.zero_point) == 8


def test_only_activations_need_data(linear: Linear) -> None:
    assert linear.calibration("weights") is None
    assert linear.calibration("activations") == UniformSteps()
    with pytest.raises(ValueError, match="needs calibration data"):
        linear.quantize_activations(make(), None, BitWidth(4, 8))


def test_the_request_is_that_of_the_settings() -> None:
    settings = LinearSettings(calibration=UniformSteps(steps=5, per_step=8))
    found = Linear(Entry("linear", "qbench", "0", "here:there"), settings).calibration("activations")
    assert found == UniformSteps(steps=5, per_step=8)


def test_presets_are_parts_of_its_settings() -> None:
    defaults = LinearSettings().model_dump(mode="json")
    found = {name: validate(LinearSettings, merged(defaults, preset), str) for name, preset in Linear.presets.items()}
    assert found == {"strict": LinearSettings(), "fast": LinearSettings(calibration=UniformSteps(per_step=25))}


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S8", "W4A8S16", "W4A8S32"])
def test_it_takes_all_bits_that_are_offered(linear: Linear, bits: str) -> None:
    assert linear.refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("linear") is Linear
