"""One denoiser that stays in memory from shard to shard of a cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qbench.stages.denoiser import Denoiser

BESIDE = frozenset({"sample", "features", "score"})
"""Kinds of stages that come between the shards of a cell; all others may need the memory."""


class Kept:
    """Holds the last frozen denoiser, so that the next shard of the same cell need not load it again.

    There is room for one. It is let go of before another is loaded, and before a stage that has no use for it.
    """

    def __init__(self) -> None:
        self._key: str | None = None
        self._denoiser: Denoiser | None = None

    def get(self, key: str, load: Callable[[], Denoiser]) -> Denoiser:
        """Return the denoiser of a key; it is loaded unless it was the last one.

        Args:
            key: says all that decides what the denoiser computes.
            load: loads and freezes it.
        """
        if self._denoiser is None or self._key != key:
            self.drop()
            self._denoiser = load()
            self._key = key
        return self._denoiser

    def begin(self, kind: str) -> None:
        """Hear that a stage of a kind begins."""
        if kind not in BESIDE:
            self.drop()

    def drop(self) -> None:
        """Let go of it."""
        self._key = self._denoiser = None


KEPT = Kept()
"""That of this process, whose stages are computed one after the other; whoever runs them drops it at the end."""
