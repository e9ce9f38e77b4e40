import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qbench.diffusion.noise import INITIAL, Choice, Purpose, normal, uniform

MASK = 2**64 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10 as the paper defines it (Salmon et al., SC 2011), on plain integers."""
    a, b, c, d = counter
    first, second = key
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (right >> 64) ^ b ^ first, right & MASK, (left >> 64) ^ d ^ second, left & MASK
        first, second = (first + 0x9E3779B97F4A7C15) & MASK, (second + 0xBB67AE8584CAA73B) & MASK
    return a, b, c, d


def expected(count: int, seed: int, purpose: int, index: int, step: int) -> list[float]:
    """Normals made one by one from the counters (1, 2, ...; index; step + 1; 0)."""
    pairs = (count + 1) // 2
    words: list[int] = []
    for block in range(1, pairs // 2 + 2):
        words += philox((block, index, step + 1, 0), (seed, purpose))
    uniform = [((word >> 11) + 1) * 2.0**-53 for word in words]
    polar = [(math.sqrt(-2 * math.log(uniform[k])), 2 * math.pi * uniform[pairs + k]) for k in range(pairs)]
    return [r * math.cos(t) for r, t in polar] + [r * math.sin(t) for r, t in polar]


def draw(
    shape: tuple[int, ...] = (6,),
    indices: object = range(4),
    seed: int = 0,
    purpose: Purpose = Purpose.EVALUATION,
    step: int = INITIAL,
) -> NDArray[np.float32]:
    return normal(shape, seed=seed, purpose=purpose, indices=indices, step=step)  # type: ignore[arg-type]


def test_the_generator_of_this_test_is_that_of_the_paper() -> None:
    """Known answers of Random123's kat_vectors."""
    assert philox((0,) * 4, (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )
    assert philox((MASK,) * 4, (MASK, MASK)) == (
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    )


@pytest.mark.parametrize(
    ("seed", "purpose", "index", "step"),
    [
        (0, Purpose.EVALUATION, 0, INITIAL),
        (0, Purpose.CALIBRATION, 0, 0),
        (7, Purpose.EVALUATION, 123_456_789, 999),
        (2**64 - 1, Purpose.CALIBRATION, 2**63 - 1, 1),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_every_value_comes_from_its_own_address(seed: int, purpose: Purpose, index: int, step: int, count: int) -> None:
    """The counters are those of the address alone, so two addresses share none: their upper words or keys differ."""
    found = draw((count,), [index], seed, purpose, step)[0]
    np.testing.assert_allclose(found, expected(count, seed, purpose.value, index, step)[:count], rtol=1e-6, atol=1e-7)


def test_purposes_have_keys_of_their_own() -> None:
    assert len({purpose.value for purpose in Purpose}) == len(list(Purpose)) == 3


def test_golden_values() -> None:
    """A change here makes every image of before incomparable."""
    first = [-0.6391786932945251, -0.21007822453975677, -0.12889352440834045, 0.06803057342767715, -0.7264186143875122]
    np.testing.assert_allclose(draw((5,), [0])[0], first, rtol=1e-6)
    other = draw((3,), [7], seed=42, purpose=Purpose.CALIBRATION, step=3)[0]
    np.testing.assert_allclose(other, [0.309198796749115, 1.1997044086456299, -0.5891211032867432], rtol=1e-6)


def test_noise_is_a_pure_function_of_the_address() -> None:
    before = np.random.get_state()[1].copy()
    first = draw()
    draw(seed=9)
    np.testing.assert_array_equal(draw(), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_batch_and_order_do_not_matter() -> None:
    whole = draw((2, 3), range(10))
    np.testing.assert_array_equal(draw((2, 3), range(4, 7)), whole[4:7])
    np.testing.assert_array_equal(draw((2, 3), [9, 0, 9]), whole[[9, 0, 9]])
    np.testing.assert_array_equal(draw((6,), range(10)), whole.reshape(10, 6))


def test_every_part_of_the_address_matters() -> None:
    rows = {
        tuple(row)
        for seed in (0, 1, 2, 2**40)
        for purpose in Purpose
        for step in (INITIAL, 0, 1, 2, 50)
        for row in draw((4,), range(10), seed, purpose, step).tolist()
    }
    assert len(rows) == 4 * 3 * 5 * 10


@pytest.mark.parametrize("swapped", [((1, 2), (2, 1)), ((3, 0), (0, 3))])
def test_index_and_step_are_not_interchangeable(swapped: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (index, step), (other_index, other_step) = swapped
    assert not np.array_equal(draw(indices=[index], step=step), draw(indices=[other_index], step=other_step))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(lambda: draw((100_000,), [0]), id="one sample"),
        pytest.param(lambda: draw((1,), range(20_000)), id="first values of samples"),
        pytest.param(lambda: draw((10,), range(10_000), seed=3, step=5), id="samples"),
        pytest.param(lambda: np.stack([draw((10,), range(20), step=step) for step in range(500)]), id="steps"),
        pytest.param(lambda: np.stack([draw((10,), range(20), seed=seed) for seed in range(500)]), id="seeds"),
    ],
)
def test_values_are_standard_normal(values) -> None:
    drawn = np.sort(values().astype(np.float64).ravel())
    count = len(drawn)
    assert abs(drawn.mean()) < 4 / math.sqrt(count)
    assert abs(drawn.var() - 1) < 4 * math.sqrt(2 / count)
    probability = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in drawn])
    distance = max(
        (np.arange(1, count + 1) / count - probability).max(), (probability - np.arange(count) / count).max()
    )
    assert distance * math.sqrt(count) < 1.95  # Kolmogorov's distribution: one in a thousand lies above


def test_neighbouring_values_samples_steps_and_seeds_are_independent() -> None:
    base = draw((20_000,), [0, 1])
    pairs = [
        (base[0][:10_000], base[0][10_000:]),  # the two halves that come from one pair of uniforms
        (base[0][:-1], base[0][1:]),
        (base[0], base[1]),
        (base[0], draw((20_000,), [0], step=0)[0]),
        (base[0], draw((20_000,), [0], seed=1)[0]),
        (base[0], draw((20_000,), [0], purpose=Purpose.CALIBRATION)[0]),
    ]
    for first, second in pairs:
        for one, other in ((first, second), (np.abs(first), np.abs(second))):
            assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(len(one))


@pytest.mark.parametrize("word", [0, MASK])
def test_the_outermost_words_give_finite_noise(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def __init__(self, **_: object) -> None: ...

        def random_raw(self, count: int) -> NDArray[np.uint64]:
            return np.full(count, word, dtype=np.uint64)

    monkeypatch.setattr(np.random, "Philox", Stuck)
    assert np.isfinite(draw()).all()


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (1, 3, 5), ()])
def test_shape_and_type(shape: tuple[int, ...]) -> None:
    drawn = draw(shape, range(3))
    assert drawn.shape == (3, *shape)
    assert drawn.dtype == np.float32


def test_no_sample_is_an_empty_batch() -> None:
    assert draw((2, 3), range(0)).shape == (0, 2, 3)


def test_an_odd_count_wastes_one_value_and_shifts_none() -> None:
    np.testing.assert_array_equal(draw((7,))[:, :4], draw((8,))[:, :4])


@pytest.mark.parametrize(("index", "step"), [(-1, 0), (-1, INITIAL), (0, -2)])
def test_what_has_no_address_is_refused(index: int, step: int) -> None:
    with pytest.raises(ValueError, match=f"no address at sample {index}, step {step}"):
        draw(indices=[0, index], step=step)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_bounds_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"a seed is 0 to .*, not {seed}"):
        draw(seed=seed)


class TestChoices:
    def choose(self, indices: object = range(4), seed: int = 0, choice: Choice = Choice.CALIBRATION_STEP) -> Any:
        return uniform(seed=seed, choice=choice, indices=indices)  # type: ignore[arg-type]

    def test_they_share_no_address_with_noise(self):
        keys = [each.value for each in (*Purpose, *Choice)]
        assert len(set(keys)) == len(keys) == 5

    @pytest.mark.parametrize(
        ("seed", "choice", "index"),
        [(0, Choice.CALIBRATION_STEP, 0), (7, Choice.CALIBRATION_IMAGE, 123), (2**64 - 1, Choice.CALIBRATION_STEP, 9)],
    )
    def test_every_number_comes_from_its_own_address(self, seed: int, choice: Choice, index: int):
        word = philox((1, index, 0, 0), (seed, choice.value))[0]
        assert self.choose([index], seed, choice)[0] == ((word >> 12) + 0.5) * 2.0**-52

    def test_golden_values(self):
        """A change here makes other calibration sets of requests that draw their steps."""
        found = self.choose([0, 1, 511], seed=3)
        np.testing.assert_allclose(found, [0.8223827260296414, 0.08528824660838696, 0.1602608687929522], rtol=1e-12)

    def test_batch_and_order_do_not_matter(self):
        whole = self.choose(range(20), seed=5)
        np.testing.assert_array_equal(self.choose(range(7, 11), seed=5), whole[7:11])
        np.testing.assert_array_equal(self.choose([19, 0, 19], seed=5), whole[[19, 0, 19]])
        assert self.choose(range(0)).shape == (0,)

    def test_every_part_of_the_address_matters(self):
        found = [self.choose(range(10), seed, choice) for seed in (0, 1, 2**40) for choice in Choice]
        assert len({number for each in found for number in each.tolist()}) == 3 * 2 * 10

    def test_numbers_are_uniform(self):
        drawn = np.sort(self.choose(range(20_000), seed=1))
        count = len(drawn)
        distance = max((np.arange(1, count + 1) / count - drawn).max(), (drawn - np.arange(count) / count).max())
        assert distance * math.sqrt(count) < 1.95
        assert drawn.dtype == np.float64

    @pytest.mark.parametrize("word", [0, MASK])
    def test_the_outermost_words_are_neither_0_nor_1(self, word: int, monkeypatch: pytest.MonkeyPatch):
        class Stuck:
            def __init__(self, **_: object) -> None: ...

            def random_raw(self, count: int) -> NDArray[np.uint64]:
                return np.full(count, word, dtype=np.uint64)

        monkeypatch.setattr(np.random, "Philox", Stuck)
        assert 0 < self.choose([0])[0] < 1

    def test_what_has_no_address_is_refused(self):
        with pytest.raises(ValueError, match="no address at sample -1"):
            self.choose([-1])
