"""What a cell cost."""

from __future__ import annotations

from qbench.records import Record
from qbench.results.wording import decimals_for

CALIBRATION = ("trajectory", "weights", "activations", "correction")
"""Stages that a quantized model needs once, before anything is sampled from it."""
SAMPLING = "sample"
NOTHING, FAILED = "-", "failed"
SIMULATED = "simulated"
"""What quantization is that is rounded to integers and computed in floating point: it has no speed of its own."""


def calibration_seconds(record: Record) -> float | None:
    """Return how long a method took: its calibration data, weights, activations and correction.

    Stages that several cells share count in each of them. None if no such stage left its cost.
    """
    seconds = [cost.seconds for cost in record.stages if cost.stage in CALIBRATION]
    return sum(seconds) if seconds else None


def sampling_seconds(record: Record) -> float | None:
    """Return how long sampling all images took; None if it left no cost."""
    seconds = [cost.seconds for cost in record.stages if cost.stage == SAMPLING]
    return sum(seconds) if seconds else None


def peak_memory_mb(record: Record) -> float | None:
    """Return the largest peak memory of the cell's stages, decimal MB; None if none left its cost."""
    return max((cost.peak_memory_mb for cost in record.stages), default=None)


def speed_up_text(record: Record) -> str:
    """Return how much faster a call is than in full precision; only integer kernels that were timed can be faster."""
    latency = record.latency
    if latency is None:
        return FAILED if record.latency_failure else NOTHING
    if latency.int8 is not None:
        ratio = latency.full_precision.seconds / latency.int8.seconds
        return f"int8 ({latency.instructions}): {ratio:.2f} times"
    return NOTHING if latency.quantized is None else "none: simulated"


def number_text(value: float | None) -> str:
    """Return three significant digits of a number, never as a power of ten."""
    if value is None:
        return NOTHING
    return f"{value:.{decimals_for([value])}f}" if value else "0"


def device_text(record: Record) -> str:
    """Return the device that a cell was made on; empty if it is not known."""
    device = record.environment.get("device")
    return "" if device is None else str(device)


def seconds_text(seconds: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
