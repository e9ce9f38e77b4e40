"""One function decides what is the same: descriptions in, digests out."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbench.errors import DataError

VERSION = 1
"""Raised when the meaning of a description changes, so that no digest of before is met again."""
SMALL_BYTES = 1 << 16
_SCALARS = frozenset({str, int, bool, type(None)})
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, plain ASCII.

    Args:
        value: nested dicts with string keys, lists, tuples, strings, booleans, None, integers, finite floats.

    Raises:
        TypeError: something has no canonical JSON form; write it as text or numbers first.
        ValueError: a float is NaN or infinite.
    """
    plain = value if _is_plain(value) else _plain(value, "$")
    return _ENCODER.encode(plain)


def digest(description: Mapping[str, Any]) -> str:
    """Return the digest of a resolved description, 64 hexadecimal digits (SHA-256).

    The same function serves the plan, the store and a record that is read back. What a description holds:
    every setting with its default filled in, the digests of inputs and of weight files, the name, package and
    revision of each plugin, and the revision of the stage. What it never holds, and why:

    - device, thread count, batch size, executor, store and results paths: they decide how fast and where, and what
      they change in a result stays within the bounds that docs name as "the same";
    - labels, titles and the order of a suite: they decide how a row is printed;
    - versions of torch and other libraries: a figure would otherwise lose its cache with every upgrade; they are
      written in each artefact's manifest and in each record instead.
    """
    text = canonical_json({"identity": VERSION, "description": description})
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size <= SMALL_BYTES:  # thousands are, and need no buffer that is larger
                return hashlib.sha256(file.read()).hexdigest()
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


def _is_plain(value: Any) -> bool:
    """Whether JSON has it as it stands, as nearly everything; a plan takes thousands of digests, so this is quick."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))
    return kind is float and math.isfinite(value)


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place} is {value}, which no description may hold")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place} has the key {key!r}: keys of a description are strings")
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place} is a {type(value).__name__}: a description holds plain JSON values only")
