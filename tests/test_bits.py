import pytest

from qbench.bits import FULL_PRECISION, LOW_BITS, SOFTMAX_BITS, BitWidth
from qbench.errors import SuiteError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("W4A8", BitWidth(4, 8)),
        ("W4A32", BitWidth(4, 32)),
        ("W32A8", BitWidth(32, 8)),
        ("W2A2S2", BitWidth(2, 2, 2)),
        ("W4A8S16", BitWidth(4, 8, 16)),
        ("W4A8S32", BitWidth(4, 8, 32)),
        ("W32A32", FULL_PRECISION),
    ],
)
def test_the_notation_is_read_and_written(text: str, expected: BitWidth) -> None:
    assert BitWidth.parse(text) == expected
    assert str(expected) == text


def test_every_legal_width_survives_a_round_trip() -> None:
    for weights in (*LOW_BITS, 32):
        for activations in (*LOW_BITS, 32):
            for softmax in (None, *SOFTMAX_BITS, 32):
                bits = BitWidth(weights, activations, softmax)
                assert BitWidth.parse(str(bits)) == bits


@pytest.mark.parametrize("text", ["", "4/8", "w4a8", "W4", "A8", "W4A8 ", "W4A8\n", "W4A8S", "W4A8S16S16", "W-4A8"])
def test_another_notation_is_refused_with_the_right_one(text: str) -> None:
    with pytest.raises(SuiteError, match="as W4A8, or W4A8S16"):
        BitWidth.parse(text)


@pytest.mark.parametrize("value", [48, None, 4.8, ["W4A8"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(SuiteError, match="is no bit-width"):
        BitWidth.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("W1A8", "1 weight bits"),
        ("W9A8", "9 weight bits"),
        ("W16A8", "16 weight bits"),
        ("W4A0", "0 activation bits"),
        ("W4A16", "16 activation bits"),
        ("W4A8S1", "1 softmax bits"),
        ("W4A8S12", "12 softmax bits"),
    ],
)
def test_bits_that_are_not_offered_are_named(text: str, message: str) -> None:
    with pytest.raises(SuiteError, match=f"'{text}': {message} are not offered: use one of 2, 3, 4, 5, 6, 7, 8"):
        BitWidth.parse(text)


@pytest.mark.parametrize(
    ("text", "weights", "activations", "full_precision"),
    [
        ("W32A32", False, False, True),
        ("W32A32S32", False, False, True),
        ("W4A32", True, False, False),
        ("W32A8", False, True, False),
        ("W32A32S16", False, True, False),
        ("W32A32S8", False, True, False),
        ("W8A8S32", True, True, False),
    ],
)
def test_what_is_quantized(text: str, weights: bool, activations: bool, full_precision: bool) -> None:
    bits = BitWidth.parse(text)
    assert bits.quantizes_weights is weights
    assert bits.quantizes_activations is activations
    assert bits.is_full_precision is full_precision
