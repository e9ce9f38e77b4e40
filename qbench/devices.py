"""Choosing the device to compute on, and what happens when its memory gives out."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from qbench.errors import QbenchError

if TYPE_CHECKING:
    import torch

OUT_OF_MEMORY = (
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
"""What plain RuntimeErrors say where torch has no type for it."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the device gave out; Python's MemoryError is of the host alone."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def free_memory(device: torch.device) -> None:
    """Give back what nobody holds any more; the exception that told of too little memory must be gone by then."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
