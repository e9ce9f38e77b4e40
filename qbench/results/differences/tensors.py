"""What differs between two files of artefacts: tensors by name, values by path, otherwise bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.errors import ResultsError
from qbench.results.differences.changes import Change, changes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CHUNK_ELEMENTS = 1 << 22
"""How many elements are compared at a time: images of a large run do not fit into memory."""
OF_THE_WHOLE = "checksum"
"""What a checkpoint says of all its tensors together: it differs with any of them."""


@dataclass(frozen=True)
class TensorChange:
    """A tensor that differs.

    Attributes:
        name: in its file; empty in a file that is one tensor.
        first: its type and shape on the one side; empty if it is not there.
        second: on the other.
        elements: how many it has; 0 if type or shape differ.
        differing: how many of them differ.
        largest: the largest absolute difference of two elements; None if it is not finite: NaN or infinity on one
            side, or no numbers.
    """

    name: str
    first: str
    second: str
    elements: int = 0
    differing: int = 0
    largest: float | None = None


@dataclass(frozen=True)
class FileChange:
    """A file that differs.

    Attributes:
        name: in its artefact.
        only: the side that it is on, if it is on one only.
        tensor: the first tensor that differs; names are in order, their numbers by size.
        tensors: how many tensors the file has on both sides together.
        differing: how many of them differ.
        values: what differs in JSON, or in what a file of tensors says of itself.
    """

    name: str
    only: str = ""
    tensor: TensorChange | None = None
    tensors: int = 0
    differing: int = 0
    values: tuple[Change, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self) | {"values": [each.as_json() for each in self.values]}


def file_change(name: str, first: Path, second: Path) -> FileChange | None:
    """Return what differs between two files of one name; None if nothing does.

    Args:
        name: of both.
        first: where the one lies.
        second: where the other lies.

    Raises:
        ResultsError: one of them cannot be read.
    """
    try:
        if name.endswith((".safetensors", ".npy")):
            return _tensors_change(name, first, second)
        contents = [path.read_bytes() for path in (first, second)]
    except (OSError, ValueError) as error:
        raise ResultsError(f"{name}: cannot be read ({error})") from error
    if contents[0] == contents[1]:
        return None
    try:
        values = changes(*(json.loads(content) for content in contents))
    except (ValueError, RecursionError):  # no JSON: its bytes differ, and that is all there is to say
        values = []
    return FileChange(name, values=tuple(values))


def _tensors_change(name: str, first: Path, second: Path) -> FileChange | None:
    with _opened(first) as one, _opened(second) as other:
        names = sorted(one.tensors.keys() | other.tensors.keys(), key=_in_order)
        differing = 0
        found = None
        for each in names:
            change = _tensor_change(each, one.tensors.get(each), other.tensors.get(each))
            if change is not None:
                differing += 1
                found = found or change
        values = changes(one.metadata, other.metadata)
    if found is None and not values:
        return None
    return FileChange(name, tensor=found, tensors=len(names), differing=differing, values=tuple(values))


@dataclass(frozen=True)
class _Tensors:
    tensors: Mapping[str, Callable[[], Array]]
    metadata: Any


@contextmanager
def _opened(path: Path) -> Iterator[_Tensors]:
    if path.suffix == ".npy":
        import numpy as np

        array = np.load(path, mmap_mode="r", allow_pickle=False)
        yield _Tensors({"": lambda: array}, {})
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: _reader(path, file, name) for name in file.keys()}  # noqa: SIM118
            yield _Tensors(tensors, _metadata(file.metadata()))
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _reader(path: Path, file: Any, name: str) -> Callable[[], Array]:
    """Return how a tensor is read; numpy has no type for some, and every value of those is one of float32 too."""

    def read() -> Array:
        if file.get_slice(name).get_dtype().startswith(("BF16", "F8")):
            from safetensors import safe_open

            with safe_open(path, framework="pt") as other:
                widened: Array = other.get_tensor(name).float().numpy()
            return widened
        found: Array = file.get_tensor(name)
        return found

    return read


def _metadata(found: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what a file says of itself, JSON in it read; its checksum says nothing that its tensors do not."""
    read: dict[str, Any] = {}
    for key, text in (found or {}).items():
        try:
            read[key] = json.loads(text)
        except (ValueError, RecursionError):
            read[key] = text
        if isinstance(read[key], dict):
            read[key] = {name: value for name, value in read[key].items() if name != OF_THE_WHOLE}
    return read


def _tensor_change(
    name: str, first: Callable[[], Array] | None, second: Callable[[], Array] | None
) -> TensorChange | None:
    one, other = (None if read is None else read() for read in (first, second))
    said = _said(one), _said(other)
    if one is None or other is None or said[0] != said[1]:
        return TensorChange(name, *said)
    differing, largest = 0, 0.0
    for a, b in _chunks(one, other):
        count, greatest = _compared(a, b)
        differing += count
        largest = max(largest, greatest)
    if not differing:
        return None
    return TensorChange(name, *said, one.size, differing, largest if isfinite(largest) else None)


def _said(array: Array | None) -> str:
    return "" if array is None else f"{array.dtype} {list(array.shape)}"


def _chunks(first: Array, second: Array) -> Iterator[tuple[Array, Array]]:
    if first.ndim == 0:
        yield first.reshape(1), second.reshape(1)
        return
    rows = max(1, CHUNK_ELEMENTS * len(first) // max(1, first.size))
    for start in range(0, len(first), rows):
        yield first[start : start + rows], second[start : start + rows]


def _compared(first: Array, second: Array) -> tuple[int, float]:
    """Return how many elements differ and by how much at most, infinity if that is no number; two NaN are equal."""
    import numpy as np

    if first.dtype.kind not in "fiub":
        return int(np.count_nonzero(first != second)), inf
    differs = first != second
    if first.dtype.kind == "f":
        differs &= ~(np.isnan(first) & np.isnan(second))
    count = int(np.count_nonzero(differs))
    if not count:
        return 0, 0.0
    a, b = (side[differs].astype(np.float64) for side in (first, second))
    with np.errstate(invalid="ignore"):
        return count, float(np.max(np.nan_to_num(np.abs(a - b), nan=inf, posinf=inf)))


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sort block 2 before block 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
