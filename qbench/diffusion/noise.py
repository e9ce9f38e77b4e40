"""Noise that is addressed, not drawn in order.

The noise of a sample is a pure function of (seed, purpose, sample index, step). It does not depend on the batch,
the shard, the device, or on who asked before; so full precision and every method start from the same noise, and
paired comparison is exact.

The bits come from Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by
(seed, purpose) and started at the counter (0, sample index, step, 0): two different addresses never share a block,
since one address would have to use 2**64 blocks to reach the next. Normals are made by Box and Muller's transform
from the raw bits and not by numpy's own, whose stream numpy reserves the right to change.
"""

from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

INITIAL = -1
"""The step under which the noise that sampling starts from is addressed."""


class Purpose(Enum):
    """What noise is for; different purposes never share a value's address."""

    EVALUATION = 1
    CALIBRATION = 2
    FISHER = 5  # what sensitivities draw for the denoiser's outputs; 3 and 4 are choices


class Choice(Enum):
    """What is chosen at random in calibration. No value is one of ``Purpose``: choices share no address with noise."""

    CALIBRATION_STEP = 3
    CALIBRATION_IMAGE = 4


def normal(
    shape: Sequence[int], *, seed: int, purpose: Purpose, indices: Sequence[int], step: int = INITIAL
) -> NDArray[np.float32]:
    """Return standard normal noise for some samples.

    Args:
        shape: shape of one sample, without the batch axis.
        seed: 0 to 2**64 - 1.
        purpose: what the noise is for.
        indices: the samples, each 0 or more.
        step: the sampling step that adds the noise, 0 or more, or ``INITIAL``.

    Returns:
        float32 array [len(indices), *shape], on the host.
    """
    count = int(np.prod(shape))
    rows = [_normals(count, seed, purpose, index, step) for index in indices]
    return np.stack(rows).reshape(len(rows), *shape) if rows else np.empty((0, *shape), np.float32)


def uniform(*, seed: int, choice: Choice, indices: Sequence[int]) -> NDArray[np.float64]:
    """Return one uniform number for each index, as a choice needs it.

    Args:
        seed: 0 to 2**64 - 1.
        choice: what is chosen.
        indices: of the samples, or of whatever is chosen from, each 0 or more.

    Returns:
        float64 array [len(indices)], strictly between 0 and 1, on the host.
    """
    # The upper 52 bits: half a unit more is still exact, and so neither 0 nor 1 comes out.
    raw = np.array([_words(1, seed, choice, index, INITIAL)[0] >> np.uint64(12) for index in indices], np.float64)
    return (raw + 0.5) * 2.0**-52


def _normals(count: int, seed: int, purpose: Purpose, index: int, step: int) -> NDArray[np.float32]:
    pairs = (count + 1) // 2
    raw = _words(2 * pairs, seed, purpose, index, step)
    # The upper 53 bits give uniforms in (0, 1]: the logarithm below stays finite.
    uniform = ((raw >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return both[:count].astype(np.float32)


def _words(count: int, seed: int, purpose: Purpose | Choice, index: int, step: int) -> NDArray[np.uint64]:
    if index < 0 or step < INITIAL:
        raise ValueError(f"noise has no address at sample {index}, step {step}")
    if not 0 <= seed < 2**64:  # NumPy 1 would wrap it around
        raise ValueError(f"a seed is 0 to 2**64 - 1, not {seed}")
    key = np.array([seed, purpose.value], dtype=np.uint64)
    counter = np.array([0, index, step + 1, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)
