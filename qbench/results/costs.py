"""What a cell cost."""

from __future__ import annotations

from qbench.records import Record

CALIBRATION = ("trajectory", "weights", "activations", "correction")
"""Stages that a quantized model needs once, before anything is sampled from it."""


def calibration_seconds(record: Record) -> float | None:
    """Return how long a method took: its calibration data, weights, activations and correction.

    Stages that several cells share count in each of them. None if no such stage left its cost.
    """
    seconds = [cost.seconds for cost in record.stages if cost.stage in CALIBRATION]
    return sum(seconds) if seconds else None


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
