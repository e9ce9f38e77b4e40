"""Time and memory of calls on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

from qbench.memory.live_bytes import LiveBytes

FEWEST_ROUNDS, MOST_ROUNDS, SECONDS = 5, 25, 1.0
"""There are so many rounds at least, and from then on until they took so long."""


def in_turns(calls: Mapping[str, Callable[[], object]], device: torch.device) -> tuple[dict[str, float], int]:
    """Time several calls in turn, so that whatever else the machine does slows all of them down alike.

    Args:
        calls: what is timed, by name; each was called before.
        device: what they compute on.

    Returns:
        The median seconds of each call, and the number of rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    rounds = 0
    while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - begun < SECONDS):
        names = list(calls) if rounds % 2 else list(calls)[::-1]  # none always comes after the same one
        for name in names:
            synchronize(device)
            start = time.perf_counter()
            calls[name]()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: median(each) for name, each in seconds.items()}, rounds


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return how many bytes a call needs at most, beside what is there before it.

    On CUDA the allocator tells; elsewhere the tensors that operations make are counted, without what an operation needs
    only within itself.
    """
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with LiveBytes() as bytes_alive:
        call()
    return int(bytes_alive.peak)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
