"""Grids that are made of others: for the halves of a concatenation, for each step, and for each slice at hand."""

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qbench.quant.grid import AffineGrid, Grid, grid_from_range
from qbench.quant.grid_kinds import DynamicGrid, SplitGrid, StepGrid, grid_from_parts
from qbench.quant.ranges import min_max_per_channel

BITS = (2, 3, 4, 8)
CPU = torch.device("cpu")
JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 20), st.floats(-2, 20), st.text(max_size=3), st.lists(st.integers())
)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of(x: Tensor, bits: int) -> AffineGrid:
    return grid_from_range(x.min(), x.max(), bits)


def concatenation(*shape: int, index: int) -> Tensor:
    """Two halves of which the second is a hundred times as large."""
    x = random(*shape)
    x[:, index:] *= 100
    return x


def weight_split(weight: Tensor, index: int, bits: int) -> SplitGrid:
    first, second = min_max_per_channel(weight[:, :index], bits), min_max_per_channel(weight[:, index:], bits)
    return SplitGrid(index, first, second)


def input_split(x: Tensor, index: int, bits: int) -> SplitGrid:
    return SplitGrid(index, of(x[:, :index], bits), of(x[:, index:], bits))


SPLITS = [
    pytest.param((4, 7, 3, 3), weight_split, id="convolution's weight"),
    pytest.param((4, 7), weight_split, id="linear weight"),
    pytest.param((4, 7, 5), weight_split, id="1-D convolution's weight"),
    pytest.param((2, 7, 5, 5), input_split, id="image"),
    pytest.param((2, 7), input_split, id="vector"),
]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("shape", "make"), SPLITS)
def test_each_half_has_a_grid_of_its_own(shape: tuple[int, ...], make, bits: int) -> None:
    x = concatenation(*shape, index=3)
    grid = make(x, 3, bits)
    found = grid(x)
    assert grid.bits == bits
    assert torch.equal(found[:, :3], grid.first(x[:, :3]))
    assert torch.equal(found[:, 3:], grid.second(x[:, 3:]))
    assert float((found - x)[:, :3].abs().max()) <= float(grid.first.scale.max()) / 2 * (1 + 1e-5)
    whole = min_max_per_channel(x, bits) if make is weight_split else of(x, bits)
    assert float((found - x)[:, :3].abs().mean()) < float((whole(x) - x)[:, :3].abs().mean())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("shape", "make"), SPLITS)
def test_integers_and_values_belong_together(shape: tuple[int, ...], make, bits: int) -> None:
    x = concatenation(*shape, index=3) * 1.2
    grid = make(x / 1.2, 3, bits)
    dense = grid.dense(shape)
    integers = grid.quantize(x)
    assert torch.equal(integers, integers.round().clamp(0, 2**bits - 1))
    assert torch.equal(grid.dequantize(integers), grid(x))
    assert torch.equal(dense(x), grid(x))
    assert torch.equal(dense.quantize(x), integers)
    rows = shape[0] if make is weight_split else 1
    assert dense.scale.shape == dense.zero_point.shape == (rows, 7, *(1,) * (len(shape) - 2))


def test_a_grid_of_one_part_is_dense_already() -> None:
    grid = of(random(3, 4), 4)
    assert grid.dense((3, 4)) is grid


def test_each_halfs_scale_learns_from_its_half_alone() -> None:
    x = random(2, 7, 3, 3)
    plain = input_split(x / 2, 3, 4)
    scales = [half.scale.clone().requires_grad_() for half in (plain.first, plain.second)]
    halves = [
        AffineGrid(4, scale, half.zero_point) for scale, half in zip(scales, (plain.first, plain.second), strict=True)
    ]
    SplitGrid(3, *halves)(x).sum().backward()
    together = [float(scale.grad) for scale in scales]
    for scale, half, part in zip(scales, halves, (x[:, :3], x[:, 3:]), strict=True):
        scale.grad = None
        half(part).sum().backward()
    assert together == [float(scale.grad) for scale in scales]


@pytest.mark.parametrize(
    ("index", "first", "second", "weight_shape", "fault"),
    [
        (3, (4, 0.1, 3.0), (4, 10.0, 9.0), (5, 7), None),
        (3, (4, 0.1, 3.0), (4, 10.0, 9.0), None, None),
        (3, (4, 0.1, 3.0), (8, 0.1, 3.0), (5, 7), "whose halves have 4 and 8 bits"),
        (0, (4, 0.1, 3.0), (4, 0.1, 3.0), (5, 7), "split at 0"),
        (0, (4, 0.1, 3.0), (4, 0.1, 3.0), None, "split at 0"),
        (7, (4, 0.1, 3.0), (4, 0.1, 3.0), (5, 7), "split at 7 of 7 channels"),
        (-2, (4, 0.1, 3.0), (4, 0.1, 3.0), (5, 7), "split at -2"),
        (-2, (4, 0.1, 3.0), (4, 0.1, 3.0), None, "split at -2"),
        (2.0, (4, 0.1, 3.0), (4, 0.1, 3.0), None, "split at 2.0"),
        ("2", (4, 0.1, 3.0), (4, 0.1, 3.0), None, "split at '2'"),
        (True, (4, 0.1, 3.0), (4, 0.1, 3.0), None, "split at True"),
        (3, (4, 0.0, 3.0), (4, 0.1, 3.0), (5, 7), "with a scale that is not positive"),
        (3, (4, 0.1, 3.0), (4, 0.1, 16.0), (5, 7), "with a zero point that is no integer from 0 to 15"),
        (3, (4, 0.1, 3.0), (4, float("nan"), 3.0), None, "that is not finite"),
        (3, (16, 0.1, 3.0), (16, 0.1, 3.0), (5, 7), "of 16 bits, where a weight has 8 at most"),
    ],
)
def test_a_split_grid_says_what_keeps_it_from_being_stored(
    index: object,
    first: tuple[int, float, float],
    second: tuple[int, float, float],
    weight_shape: tuple[int, ...] | None,
    fault: str | None,
) -> None:
    halves = [AffineGrid(bits, scalar(scale), scalar(zero_point)) for bits, scale, zero_point in (first, second)]
    assert SplitGrid(index, *halves).fault(weight_shape) == fault


@pytest.mark.parametrize("weight_shape", [None, (3, 4)])
def test_halves_of_different_shapes_are_a_fault(weight_shape: tuple[int, ...] | None) -> None:
    mixed = SplitGrid(2, AffineGrid(4, scalar(1), scalar(0)), AffineGrid(4, torch.ones(3, 1), torch.zeros(3, 1)))
    assert mixed.fault(weight_shape) == "whose halves have scales of different shapes"


STEPS = StepGrid(4, torch.tensor([0.1, 1.0, 10.0]), torch.tensor([8.0, 0.0, 15.0]))


@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 6), (5, 2, 3, 3)])
def test_each_row_has_the_grid_of_its_step(shape: tuple[int, ...]) -> None:
    x, steps = random(*shape) * 5, torch.tensor([2, 0, 1, 1, 0])
    found = STEPS(x, steps)
    for row, step in enumerate(steps):
        alone = AffineGrid(4, STEPS.scale[step], STEPS.zero_point[step])
        assert torch.equal(found[row], alone(x[row]))


def test_a_step_behind_the_last_one_has_the_last_ones_grid() -> None:
    x = random(2, 6) * 50
    assert torch.equal(STEPS(x, torch.tensor([3, 99])), STEPS(x, torch.tensor([2, 2])))
    assert not torch.equal(STEPS(x, torch.tensor([2, 2])), STEPS(x, torch.tensor([1, 1])))


def test_a_grid_for_each_step_has_to_be_told_the_step() -> None:
    with pytest.raises(ValueError, match="without being told the step"):
        STEPS(random(2, 6))


@pytest.mark.parametrize(
    ("scale", "zero_point", "weight_shape", "fault"),
    [
        ([0.1, 0.2], [3.0, 15.0], None, None),
        ([0.1, 0.2], [3.0, 3.0], (2, 2), "that changes with the step, where a weight needs one that does not"),
        ([[0.1], [0.2]], [[3.0], [3.0]], None, "of shape (2, 1), where one value for each step is due"),
        ([], [], None, "of shape (0,), where one value for each step is due"),
        ([0.1, 0.2], [3.0], None, "of shape (2,), where one value for each step is due"),
        ([0.1, 0.0], [3.0, 3.0], None, "with a scale that is not positive"),
        ([0.1, 0.2], [3.0, 16.0], None, "with a zero point that is no integer from 0 to 15"),
    ],
)
def test_a_grid_for_each_step_says_what_keeps_it_from_being_stored(
    scale: list[float], zero_point: list[float], weight_shape: tuple[int, ...] | None, fault: str | None
) -> None:
    assert StepGrid(4, torch.tensor(scale), torch.tensor(zero_point)).fault(weight_shape) == fault


@pytest.mark.parametrize("bits", BITS)
def test_each_token_has_the_grid_of_its_extremes(bits: int) -> None:
    x = random(2, 5, 8) * torch.tensor([0.01, 1.0, 100.0, 1.0, 3.0])[:, None]
    found = DynamicGrid(bits)(x)
    for image in range(2):
        for token in range(5):
            assert torch.equal(found[image, token], of(x[image, token], bits)(x[image, token]))


@pytest.mark.parametrize(("shape", "axes"), [((4, 6), 1), ((4, 3, 6), 1), ((4, 3, 6), 2), ((4, 2, 5, 5), 3)])
def test_an_image_does_not_depend_on_its_neighbours(shape: tuple[int, ...], axes: int) -> None:
    x, grid = random(*shape), DynamicGrid(3, axes)
    crowded = x.clone()
    crowded[1:] *= 1000
    crowded[3] = float("nan")
    assert torch.equal(grid(crowded)[0], grid(x)[0])
    assert torch.equal(grid(x[:1])[0], grid(x)[0])
    assert torch.equal(grid(x.flip(0)), grid(x).flip(0))
    assert not torch.equal(grid(x), x)


@pytest.mark.parametrize(("shape", "axes"), [((4, 6), 2), ((4, 6, 5), 3), ((4,), 1), ((), 1), ((4, 6), 3)])
def test_a_range_over_the_batch_is_refused(shape: tuple[int, ...], axes: int) -> None:
    with pytest.raises(ValueError, match="would reach over the batch"):
        DynamicGrid(8, axes)(torch.ones(shape))


def test_a_dynamic_grid_lets_gradients_through() -> None:
    """Nothing lies beyond its own extremes, and those count as inside."""
    x = random(3, 80).requires_grad_()
    DynamicGrid(8)(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 80))


@pytest.mark.parametrize("weight_shape", [None, (4, 4)])
@pytest.mark.parametrize(("bits", "axes"), [(8, 1), (2, 2), (16, 3)])
def test_a_dynamic_grid_is_for_inputs(bits: int, axes: int, weight_shape: tuple[int, ...] | None) -> None:
    fault = "that changes with its input, where a weight needs one that does not"
    assert DynamicGrid(bits, axes).fault(weight_shape) == (fault if weight_shape else None)


@pytest.mark.parametrize("axes", [0, -1, 4, 1.0, 1.5, True, "1", None])
def test_axes_that_are_not_offered_are_refused(axes: object) -> None:
    with pytest.raises(ValueError, match=r"a range over .* axes is not offered: use 1 to 3"):
        DynamicGrid(8, axes)


@pytest.mark.parametrize("bits", [0, 1, 9, 17, 8.0, True, "8", None])
def test_bits_that_are_not_offered_are_refused(bits: object) -> None:
    for make in (DynamicGrid, lambda bits: StepGrid(bits, torch.ones(2), torch.zeros(2))):
        with pytest.raises(ValueError, match="bits is not offered: use one of 2, 3, 4, 5, 6, 7, 8, 16"):
            make(bits)


X = concatenation(4, 7, 3, 3, index=3)
KINDS: list[Grid] = [
    of(X, 4),
    of(X, 16),
    min_max_per_channel(X, 3),
    input_split(X, 3, 8),
    weight_split(X, 3, 2),
    StepGrid(8, torch.tensor([0.1, 0.3, 0.2]), torch.tensor([3.0, 255.0, 0.0])),
    DynamicGrid(6, 3),
]


@pytest.mark.parametrize("grid", KINDS, ids=lambda grid: grid.config()["kind"])
def test_a_grid_comes_back_from_its_parts(grid: Grid) -> None:
    steps = torch.tensor([0, 2, 1, 9])
    back = grid_from_parts(grid.config(), grid.tensors())
    assert type(back) is type(grid)
    assert back.config() == grid.config()
    assert back.bits == grid.bits
    assert torch.equal(back(X, steps), grid(X, steps))
    assert torch.equal(grid.to(CPU)(X, steps), grid(X, steps))


@pytest.mark.parametrize("grid", KINDS, ids=lambda grid: grid.config()["kind"])
def test_all_tensors_of_a_grid_move(grid: Grid) -> None:
    moved = grid.to(torch.device("meta"))
    assert type(moved) is type(grid)
    assert {tensor.device.type for tensor in moved.tensors().values()} <= {"meta"}
    assert moved.config() == grid.config()


GOOD = {"scale": torch.ones(2), "zero_point": torch.zeros(2)}


NO_PARTS: dict[str, list[tuple[dict[str, object], dict[str, Tensor]]]] = {
    "it is incomplete: 'kind'": [({}, GOOD)],
    "it is incomplete: 'bits'": [({"kind": "affine"}, GOOD), ({"kind": "dynamic", "axes": 1}, {})],
    "it is incomplete: 'scale'": [
        ({"kind": "affine", "bits": 4}, {}),
        ({"kind": "steps", "bits": 4}, {"zero_point": torch.zeros(2)}),
    ],
    "it is incomplete: 'zero_point'": [({"kind": "affine", "bits": 4}, {"scale": torch.ones(())})],
    "it is incomplete: 'index'": [({"kind": "split", "bits": 4}, GOOD)],
    "it is incomplete: 'axes'": [({"kind": "dynamic", "bits": 4}, {})],
    "it is incomplete: iteration over a 0-d tensor": [
        ({"kind": "split", "bits": 4, "index": 1}, {name: part[0] for name, part in GOOD.items()})
    ],
    "expected 2": [
        ({"kind": "split", "bits": 4, "index": 1}, {name: torch.ones(halves) for name in GOOD}) for halves in (0, 1, 3)
    ],
    "bits is not offered": [
        ({"kind": kind, "bits": bits}, GOOD) for kind in ("affine", "steps") for bits in (9, "4", 4.0, None, [4], True)
    ],
    "axes is not offered": [({"kind": "dynamic", "bits": 4, "axes": axes}, {}) for axes in (0, 4, 1.5, True, "1")],
    "it has scale, which it cannot use": [({"kind": "dynamic", "bits": 4, "axes": 1}, {"scale": torch.ones(2)})],
    "kind .* is not known": [({"kind": kind, "bits": 4}, GOOD) for kind in ("logarithmic", None, ["affine"])],
    "not float32": [
        ({"kind": kind, "bits": 4, "index": 1}, GOOD | {name: GOOD[name].to(dtype)})
        for kind in ("affine", "split", "steps")
        for name in GOOD
        for dtype in (torch.float64, torch.float16, torch.int32, torch.uint8)
    ],
}


@pytest.mark.parametrize("reason", NO_PARTS)
def test_parts_of_no_grid_are_refused(reason: str) -> None:
    for config, tensors in NO_PARTS[reason]:
        with pytest.raises(ValueError, match=reason):
            grid_from_parts(config, tensors)


@given(
    kind=st.sampled_from(("affine", "split", "steps", "dynamic")) | JSON,
    rest=st.dictionaries(st.sampled_from(("bits", "index", "axes")), JSON),
    tensors=st.dictionaries(
        st.sampled_from(("scale", "zero_point")), st.lists(st.integers(0, 3), max_size=3).map(torch.ones)
    ),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_whatever_the_parts_only_a_value_error_comes(kind: object, rest: dict[str, object], tensors: dict) -> None:
    with suppress(ValueError):
        grid = grid_from_parts({"kind": kind, **rest}, tensors)
        assert grid.config().items() <= {"kind": kind, **rest}.items()
