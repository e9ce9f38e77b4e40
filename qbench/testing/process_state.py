"""What a process has one of, and a plugin must therefore leave alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

UNLIKELY_SEED = 770_931
"""Added to seeds: a plugin that sets the seed 0 is to change something."""


def process_state() -> dict[str, Any]:
    """Return, by a name for people, what can be compared before and after."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch's global random numbers": torch.get_rng_state().numpy().tobytes(),
        "numpy's global random numbers": (kind, np.asarray(keys).tobytes(), tuple(rest)),
        "Python's global random numbers": random.getstate(),
        "torch's default type": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "whether torch keeps gradients": torch.is_grad_enabled(),
        "the number of torch's threads": torch.get_num_threads(),
        "whether torch is deterministic": torch.are_deterministic_algorithms_enabled(),
        "the precision of torch's products": torch.get_float32_matmul_precision(),
    }


@contextmanager
def restored() -> Iterator[list[str]]:
    """Put the process's state back in the end; what was changed meanwhile is in the list then."""
    changed: list[str] = []
    before, arrays, python = process_state(), np.random.get_state(), random.getstate()
    seeds, threads = torch.get_rng_state(), torch.get_num_threads()
    dtype, device, gradients = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    deterministic, precision = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    try:
        yield changed
    finally:
        after = process_state()
        changed += [name for name, value in before.items() if after[name] != value]
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_rng_state(seeds)
        np.random.set_state(arrays)
        random.setstate(python)


def stir(seed: int) -> None:
    """Set all global random numbers, so that a plugin that draws from them gives itself away.

    Args:
        seed: another one each time.
    """
    seed += UNLIKELY_SEED
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
