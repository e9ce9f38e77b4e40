"""A wrapped denoiser at work: observed, in full precision, partly quantized, frozen, and run over data."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.quant import CalibrationData, QuantModel, RunningMinMax, StepGrid, grid_from_range, min_max_per_channel
from qbench.quant.model import run_over

KINDS = pytest.mark.parametrize("kind", ["image", "text"])
STEPS = torch.arange(4)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def quantized(
    small_model: Callable[..., QuantModel], small_data: Callable[..., CalibrationData]
) -> Callable[[str], QuantModel]:
    """Return a function that makes a model with grids everywhere, ranges from a few images."""

    def make(kind: str) -> QuantModel:
        model = small_model(kind, "W4A8")
        for layer in model.layers.values():
            layer.weight_grid = min_max_per_channel(layer.weight, 4)
        ranges = {name: RunningMinMax() for name in model.taps}
        with model.observing(ranges.__getitem__):
            run_over(model, small_data(kind))
        for name, tap in model.taps.items():
            tap.grid = ranges[name].grid(8)
        return model

    return make


@pytest.fixture
def inputs(small_data: Callable[..., CalibrationData]) -> Callable[..., dict[str, Any]]:
    """Return a function that makes what four images are denoised from; another draw gives other images."""

    def make(kind: str, draw: int = 0) -> dict[str, Any]:
        given = small_data(kind, count=4, draw=draw)
        return {"x": given.x, "timesteps": given.timesteps, "context": given.context}

    return make


@pytest.fixture
def original(small_unet: Callable[[str], Any], inputs: Callable[[str], dict[str, Any]]) -> Callable[[str], Tensor]:
    """Return a function that gives the plain denoiser's output."""

    def call(kind: str) -> Tensor:
        given = inputs(kind)
        found: Tensor = small_unet(kind)(given["x"], given["timesteps"], **given["context"]).sample
        return found

    return call


def without_grids(model: QuantModel, names: Collection[str]) -> QuantModel:
    for name in names:
        model.taps[name].grid = None
        if name in model.layers:
            model.layers[name].weight_grid = None
    return model


def fail_within(context: AbstractContextManager[None]) -> None:
    """Have something go wrong while a context lasts."""

    def fail() -> None:
        with context:
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        fail()


@KINDS
def test_observers_see_every_activation_while_they_look(quantized, inputs, kind: str) -> None:
    model = quantized(kind)
    seen: dict[str, list[Tensor]] = {name: [] for name in model.taps}
    with model.observing(lambda name: seen[name].append):
        model(**inputs(kind))
    model(**inputs(kind, draw=1))
    assert {len(each) for each in seen.values()} == {1}
    assert torch.equal(seen["conv_in"][0], inputs(kind)["x"])


def test_observers_leave_when_something_goes_wrong(small_model) -> None:
    model = small_model()
    fail_within(model.observing(lambda name: lambda x: None))
    assert all(tap.observer is None for tap in model.taps.values())


@KINDS
def test_full_precision_comes_and_goes_to_the_bit(quantized, inputs, original, kind: str) -> None:
    model, given = quantized(kind), inputs(kind)
    low_bits = model(**given)
    assert not torch.equal(low_bits, original(kind))
    for _ in range(2):
        with model.full_precision():
            assert torch.equal(model(**given), original(kind))
        assert torch.equal(model(**given), low_bits)
    for context in (model.full_precision(), model.quantizing_only(["conv_in"])):
        fail_within(context)
        assert torch.equal(model(**given), low_bits)


@pytest.mark.parametrize(
    "names",
    [
        {"conv_in"},
        {"conv_in", "up_blocks.0.resnets.1.conv_shortcut", "mid_block.attentions.0.to_q"},
        {"mid_block.attentions.0.softmax"},
        {"mid_block.attentions.0.q", "mid_block.attentions.0.v", "conv_out"},
    ],
)
def test_only_some_layers_and_operands_are_quantized(quantized, inputs, original, names: set[str]) -> None:
    model, given = quantized("image"), inputs("image")
    everything = model(**given)
    with model.quantizing_only(names):
        found = model(**given)
    assert torch.equal(found, without_grids(model, model.taps.keys() - names)(**given))
    assert not torch.equal(found, everything)
    assert not torch.equal(found, original("image"))


@pytest.mark.parametrize("names", [["inner"], ["conv_in", "conv"], ["mid_block.attentions.0"], ["conv_in.weight"]])
def test_names_that_no_tap_has_are_refused(small_model, names: list[str]) -> None:
    model = small_model()
    refused = pytest.raises(ValueError, match=rf"no layer or attention operand {names[-1]!r}$")
    with refused, model.quantizing_only(names):
        pass
    assert all(tap.enabled for tap in model.taps.values())


def test_observers_within_observers_give_way_again(quantized, inputs) -> None:
    model, given = quantized("image"), inputs("image")
    outer, inner = list[str](), list[str]()
    with model.observing(lambda name: lambda x: outer.append(name)):
        with model.observing(lambda name: lambda x: inner.append(name)):
            model(**given)
        assert outer == []
        fail_within(model.observing(lambda name: lambda x: inner.append(name)))
        model(**given)
    assert outer == inner
    assert sorted(outer) == sorted(model.taps)
    assert all(tap.observer is None for tap in model.taps.values())


def test_contexts_lie_within_each_other(quantized, inputs, original) -> None:
    model, given = quantized("image"), inputs("image")
    low_bits = model(**given)
    with model.quantizing_only(["conv_in"]):
        some = model(**given)
        with model.full_precision():
            assert torch.equal(model(**given), original("image"))
        assert torch.equal(model(**given), some)
    assert torch.equal(model(**given), low_bits)


@KINDS
def test_folding_changes_no_bit_of_the_output(quantized, inputs, original, kind: str) -> None:
    model, given = quantized(kind), inputs(kind)
    per_call = model(**given)
    model.freeze()
    assert torch.equal(model(**given), per_call)
    assert not torch.equal(per_call, original(kind))


def test_a_frozen_model_has_no_full_precision_any_more(quantized, inputs) -> None:
    model, given = quantized("image"), inputs("image")
    model.freeze()
    low_bits = model(**given)
    with pytest.raises(ValueError, match="the model is frozen"), model.quantizing_only(()):
        pytest.fail("the folded weights would be taken for the original ones")
    with pytest.raises(ValueError, match="the model is frozen"), model.full_precision():
        pass
    assert all(tap.enabled for tap in model.taps.values())
    assert torch.equal(model(**given), low_bits)


@KINDS
def test_an_image_does_not_depend_on_its_neighbours(quantized, inputs, kind: str) -> None:
    model, given = quantized(kind), inputs(kind)
    model.freeze()
    alone = model(**given)[:2]
    given["x"][2:] *= 100
    assert torch.equal(model(**given)[:2], alone)


def test_a_static_grid_clamps_what_calibration_never_saw(quantized, inputs) -> None:
    model, given = quantized("image"), inputs("image")
    for tap in model.taps.values():
        tap.grid = grid_from_range(torch.tensor(0.0), torch.tensor(0.0), 8)
    assert model(1e3 * given["x"], given["timesteps"]).isfinite().all()


def test_grids_that_depend_on_the_step_are_told_it(quantized, inputs) -> None:
    model, given = quantized("image"), inputs("image")
    one_step = model.taps["conv_in"].grid
    scales = torch.stack([one_step.scale, one_step.scale * 3])
    model.taps["conv_in"].grid = StepGrid(8, scales, one_step.zero_point.expand(2))
    first = model(**given, steps=torch.zeros(4, dtype=torch.int64))
    second = model(**given, steps=torch.ones(4, dtype=torch.int64))
    mixed = model(**given, steps=torch.tensor([0, 1, 0, 1]))
    assert torch.equal(mixed[[0, 2]], first[[0, 2]])
    assert torch.equal(mixed[[1, 3]], second[[1, 3]])
    assert not torch.equal(first, second)
    for context in (model.at(None), model.at(STEPS)):  # a call tells its own steps, be they none
        with context, pytest.raises(ValueError, match="without being told the step"):
            model(**given)


def test_without_grids_for_steps_nobody_need_tell_them(quantized, inputs) -> None:
    model, given = quantized("image"), inputs("image")
    assert torch.equal(model(**given), model(**given, steps=STEPS))


class Remembering:
    """Takes the place of a grid and remembers the steps that it is told."""

    bits = 8

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.steps: list[Tensor | None] = []

    def __call__(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        self.rows.append(x)
        self.steps.append(steps)
        return x


@pytest.mark.parametrize(("batch_size", "batches"), [(3, 4), (10, 1), (100, 1), (1, 10)])
def test_run_over_takes_every_row_once(small_model, small_data, batch_size: int, batches: int) -> None:
    model, reported = small_model("image", "W4A8"), []
    given = small_data("image", batch_size=batch_size, report=reported.append)
    model.taps["conv_in"].grid = grid = Remembering()
    run_over(model, given)
    assert torch.equal(torch.cat(grid.rows), given.x)
    assert torch.equal(torch.cat(grid.steps), given.step_indices)
    assert len(grid.rows) == batches
    assert reported == [len(rows) / 10 for rows in grid.rows]


def test_run_over_tells_timesteps_and_conditioning(small_model, small_data) -> None:
    model, given = small_model("text", "W4A8"), small_data("text")
    called: list[dict[str, Any]] = []
    structure = model.structure

    def watch(module: Any, x: Tensor, timesteps: Tensor, context: Any) -> Tensor:
        called.append({"timesteps": timesteps, **context})
        return structure.call(module, x, timesteps, context)

    model.structure = replace(structure, call=watch)
    run_over(model, given)
    assert torch.equal(torch.cat([each["timesteps"] for each in called]), given.timesteps)
    text = torch.cat([each["encoder_hidden_states"] for each in called])
    assert torch.equal(text, given.context["encoder_hidden_states"])


def test_no_rows_to_run_over_are_refused(small_model, small_data) -> None:
    with pytest.raises(ValueError, match="the calibration data has no rows"):
        run_over(small_model(), small_data(count=0))
