"""TF32: NVIDIA's faster products of float32, with ten bits of mantissa in place of 23."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Allow TF32 in matrix products and convolutions, or forbid it, while the context lasts.

    torch forbids it in products and allows it in convolutions. Without a word from the user it is forbidden in both:
    figures of one device would else differ from those of another by more than they need to.
    """
    places = [(owner, name, getattr(owner, name)) for owner, name in _switches()]
    is_new = places[0][1] == "fp32_precision"
    try:
        for owner, name, _ in places:
            setattr(owner, name, ("tf32" if allowed else "ieee") if is_new else allowed)
        yield
    finally:
        for owner, name, before in places:
            setattr(owner, name, before)


def _switches() -> list[tuple[Any, str]]:
    """Return where torch has them: it deprecated one interface for another, and must not see both in one process."""
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "conv"):
        return [(each, "fp32_precision") for each in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]
    return [(each, "allow_tf32") for each in (backends.cuda.matmul, backends.cudnn)]
