"""Real images as some place holds them, before any preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


class Picture(Protocol):
    """One image of a place, whose bytes may not have been read yet."""

    @property
    def place(self) -> str:
        """Where it is, to begin the sentence of an error."""

    def decoded(self, channels: int) -> Image.Image:
        """Return its pixels in one channel (mode L) or three (RGB).

        Raises:
            DataError: it is damaged, or cannot be had in so many channels; the sentence names it.
        """


@dataclass(frozen=True)
class Pictures:
    """The images of a place.

    Attributes:
        place: where they are, for the sentence of an error.
        count: how many.
        digest: SHA-256 of their bytes and their order.
        take: from indices below ``count`` to the images; what is not needed is not read.
        sizes: (width, height) of each, where that is known without decoding them; None where it is not.
    """

    place: str
    count: int
    digest: str
    take: Callable[[Sequence[int]], Sequence[Picture]]
    sizes: Sequence[tuple[int, int]] | None = None
