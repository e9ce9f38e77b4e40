"""Safetensors files whose bytes depend on their content only, written aside and renamed into place."""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qbench.errors import DataError


@dataclass(frozen=True)
class TensorFile:
    """Content of a safetensors file."""

    tensors: dict[str, Tensor]
    """Tensors by name, on the CPU."""
    metadata: dict[str, str]
    """The strings stored beside them."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and strings; equal content gives equal bytes.

    The library writes the strings in an arbitrary order, so the header is put in order here.

    Args:
        path: The file; its folder is created. A reader never sees a half-written file.
        tensors: Tensors by name, on any device.
        metadata: Strings to store beside them.
    """
    packed = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
    (length,) = struct.unpack("<Q", packed[:8])
    header = json.loads(packed[8 : 8 + length])
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(struct.pack("<Q", len(ordered)) + ordered + packed[8 + length :])
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def read_tensors(path: Path) -> TensorFile:
    """Reads a whole safetensors file.

    Raises:
        DataError: The file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}.") from error
    return TensorFile(tensors, dict(metadata))
