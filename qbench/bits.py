"""Bit-widths: how many bits weights, activations and the softmax output get."""

import re
from dataclasses import dataclass

from qbench.errors import SuiteError

FULL_PRECISION_BITS = 32
LOW_BITS = (2, 3, 4, 5, 6, 7, 8)
SOFTMAX_BITS = (*LOW_BITS, 16)

_NOTATION = re.compile(r"W(\d{1,2})A(\d{1,2})(?:S(\d{1,2}))?")


@dataclass(frozen=True)
class BitWidth:
    """The bits of one cell, written ``W4A8`` or ``W4A8S16``; 32 means left in full precision.

    Attributes:
        weights: 2 to 8, or 32.
        activations: 2 to 8, or 32.
        softmax: bits of the softmax output, 2 to 8, 16 or 32; None leaves it to the method.
    """

    weights: int
    activations: int
    softmax: int | None = None

    def __post_init__(self) -> None:
        for name, value, legal in (
            ("weight", self.weights, LOW_BITS),
            ("activation", self.activations, LOW_BITS),
            ("softmax", self.softmax, SOFTMAX_BITS),
        ):
            if value is not None and value not in legal and value != FULL_PRECISION_BITS:
                listed = ", ".join(map(str, legal))
                raise SuiteError(f"{value} {name} bits are not offered: use one of {listed}, or 32 for full precision")

    @classmethod
    def parse(cls, text: str) -> "BitWidth":
        """Read ``W4A8`` or ``W4A8S16``.

        Raises:
            SuiteError: the text has another form or names bits that are not offered.
        """
        match = _NOTATION.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise SuiteError(f"{text!r} is no bit-width: write weight and activation bits as W4A8, or W4A8S16")
        weights, activations, softmax = match.groups()
        try:
            return cls(int(weights), int(activations), int(softmax) if softmax else None)
        except SuiteError as error:
            raise SuiteError(f"{text!r}: {error}") from None

    @property
    def is_full_precision(self) -> bool:
        """Whether nothing is quantized."""
        return {self.weights, self.activations, self.softmax or FULL_PRECISION_BITS} == {FULL_PRECISION_BITS}

    @property
    def quantizes_weights(self) -> bool:
        """Whether weights have fewer than 32 bits."""
        return self.weights < FULL_PRECISION_BITS

    @property
    def quantizes_activations(self) -> bool:
        """Whether activations, the softmax output included, have fewer than 32 bits."""
        return min(self.activations, self.softmax or FULL_PRECISION_BITS) < FULL_PRECISION_BITS

    def __str__(self) -> str:
        softmax = "" if self.softmax is None else f"S{self.softmax}"
        return f"W{self.weights}A{self.activations}{softmax}"


FULL_PRECISION = BitWidth(FULL_PRECISION_BITS, FULL_PRECISION_BITS)
