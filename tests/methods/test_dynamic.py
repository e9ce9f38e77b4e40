from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.bits import BitWidth
from qbench.errors import StageError
from qbench.plugins import METHODS
from qbench.quant import DynamicGrid, min_max_per_channel, set_input_grids, time_layers
from qbench.quant.recipes import ActivationRanges
from qbench.settings import merged, validate
from qbench_methods.dynamic import Dynamic, DynamicSettings

Run = Callable[..., Any]


def test_presets_are_parts_of_its_settings() -> None:
    defaults = DynamicSettings().model_dump(mode="json")
    found = {name: validate(DynamicSettings, merged(defaults, part), str) for name, part in Dynamic.presets.items()}
    assert found == {
        "strict": DynamicSettings(),
        "as-published": DynamicSettings(attention=False, ends=False),
        "fast": DynamicSettings(),
    }


@pytest.mark.parametrize("target", ["weights", "activations"])
def test_it_needs_no_data_at_all(create: Run, small_model: Run, target: str) -> None:
    method, model = create(Dynamic), small_model()
    assert method.calibration(target) is None
    getattr(method, f"quantize_{target}")(model, None, BitWidth(4, 8))
    assert any(tap.grid is not None for tap in model.taps.values()) == (target == "activations")


def test_everything_is_quantized_and_nothing_left_out(end_to_end: Run, create: Run) -> None:
    assert end_to_end(create(Dynamic)).model.left_out() == []


def test_weights_are_rounded_to_nearest_between_the_extremes(end_to_end: Run, create: Run) -> None:
    outcome = end_to_end(create(Dynamic))
    for name, integers in outcome.integers().items():
        layer = outcome.model.layers[name]
        grid = min_max_per_channel(layer.weight, layer.bits.weights)
        assert torch.equal(integers, grid.quantize(layer.weight))


def test_layers_of_tokens_have_a_range_for_each_and_convolutions_one_for_each_image(
    end_to_end: Run, create: Run
) -> None:
    model = end_to_end(create(Dynamic)).model
    for name, tap in model.taps.items():
        is_convolution = name in model.layers and model.layers[name].weight.dim() == 4
        bits = 16 if name.endswith(".softmax") else 8
        assert tap.grid == DynamicGrid(bits, 3 if is_convolution else 1), name
    assert {tap.grid.axes for tap in model.taps.values()} == {1, 3}


def tapped(model: Any, data: Any, shape: int) -> dict[str, Tensor]:
    """What taps see that have inputs of so many axes."""
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), model.observing(lambda name: lambda x: seen.update({name: x})):
        model(data.x, data.timesteps)
    return {name: x for name, x in seen.items() if x.dim() == shape}


def test_scaling_a_token_or_an_image_scales_its_rounding(end_to_end: Run, create: Run, small_data: Run) -> None:
    model, data = end_to_end(create(Dynamic)).model, small_data(8)
    scale = 0.5 ** torch.arange(8)  # exact in floating point
    for dim in (2, 3, 4):
        inputs = tapped(model, data, dim)
        assert inputs
        for name, x in inputs.items():
            grid, factors = model.taps[name].grid, scale[: len(x)].view(-1, *(1,) * (dim - 1))
            if dim == 3:
                factors = scale[torch.arange(x.shape[1]) % 8].view(1, -1, 1)
            assert torch.equal(grid(factors * x), factors * grid(x)), name


def test_an_image_does_not_depend_on_its_neighbours(end_to_end: Run, create: Run, small_data: Run) -> None:
    """Not even on one whose values are a thousand times its own."""
    model, data = end_to_end(create(Dynamic)).model, small_data(4)
    loud = data.x * torch.tensor([1.0, 1000.0, 1.0, 1000.0]).view(-1, 1, 1, 1)
    with torch.no_grad():
        alone = torch.cat([model(data.x[i : i + 1], data.timesteps[i : i + 1]) for i in (0, 2)])
        among = model(loud, data.timesteps)[[0, 2]]
    torch.testing.assert_close(among, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("outlier", [1.0, 10.0, 1000.0])
def test_it_errs_no_more_than_one_range_where_tokens_differ(
    outlier: float, small_model: Run, small_data: Run, create: Run
) -> None:
    """A static range must hold the loudest token; a token of its own range does not feel it."""
    static, dynamic, data = small_model("W32A8"), small_model("W32A8"), small_data(8)
    loud = replace(data, x=data.x * torch.where(torch.arange(8) == 0, outlier, 1.0).view(-1, 1, 1, 1))
    set_input_grids(static, loud, ActivationRanges())
    create(Dynamic).quantize_activations(dynamic, None, BitWidth(32, 8))
    errors = []
    for model in (static, dynamic):
        grid = model.taps["conv_in"].grid
        errors.append((grid(loud.x) - loud.x).square().flatten(1).mean(1))
    assert bool((errors[1] <= 1.05 * errors[0]).all())
    if outlier > 1:
        assert bool((errors[1][1:] < 0.1 * errors[0][1:]).all())


def test_as_published_leaves_out_attention_and_what_takes_in_time_and_image(create: Run, small_model: Run) -> None:
    model, method = small_model("W3A8", 8), create(Dynamic, **Dynamic.presets["as-published"])
    method.quantize_weights(model, None, model.bits)
    method.quantize_activations(model, None, model.bits)
    ends = {"conv_in", "conv_out", *time_layers(model)}
    operands = {f"{name}.{operand}" for name in model.attentions for operand in ("q", "k", "softmax", "v")}
    assert {name for name, layer in model.layers.items() if layer.weight_grid is None} == ends
    assert {name for name, tap in model.taps.items() if tap.grid is None} == ends | operands


def test_bits_for_a_softmax_that_is_left_out_are_refused(create: Run) -> None:
    bits = BitWidth.parse("W4A8S16")
    assert create(Dynamic).refusal(bits) is None
    assert create(Dynamic, attention=False).refusal(bits) == (
        "dynamic leaves attention in full precision (attention: false), so its softmax output cannot have 16 bits"
    )


def test_a_time_path_that_is_not_known_cannot_be_left_out(create: Run, small_model: Run) -> None:
    model = small_model()
    model.structure = replace(model.structure, time_path=None)
    with pytest.raises(StageError, match="does not say which layers its timestep passes through"):
        create(Dynamic, ends=False).quantize_activations(model, None, BitWidth(4, 8))


@pytest.mark.parametrize("bits", ["W4A8", "W2A2", "W4A32", "W32A8", "W4A8S16"])
def test_it_takes_all_bits_that_are_offered(create: Run, bits: str) -> None:
    assert create(Dynamic).refusal(BitWidth.parse(bits)) is None


def test_it_is_installed_under_its_name() -> None:
    assert METHODS.load("dynamic") is Dynamic
