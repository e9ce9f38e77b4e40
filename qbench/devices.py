"""Choosing the device to compute on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbench.errors import QbenchError

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> torch.device:
    """Return a device from its name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        QbenchError: the name is no device, or this machine has none of that kind.
    """
    import torch

    if "," in name:
        raise QbenchError(f"--device {name}: one device at a time; --executor ray uses all that there are")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise QbenchError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:1 or mps") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count.get(device.type, 0):
        raise QbenchError(f"--device {name}: this machine has no such device; `qbench doctor` lists what it has")
    return device
