"""Digests of large files, remembered while a file stays as it is, so that planning does not read gigabytes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from qbench.identity import digest as digest_of
from qbench.identity import file_digest
from qbench.workloads.places import about_file

WORTH_REMEMBERING = 1 << 20
"""Bytes; a smaller file is read each time."""


def remembered_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits.

    It is remembered under the file's path, size and time of change, so that the bytes are read once only.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    if not path.is_file() or path.stat().st_size < WORTH_REMEMBERING:
        return file_digest(path)
    note, state = about_file("digests", path), _state(path)
    known = note.read_text(encoding="ascii").split() if note.is_file() else []
    if len(known) == 2 and known[0] == state:
        return known[1]
    found = file_digest(path)
    remember_digest(path, found)
    return found


def remember_digest(path: Path, digest: str) -> None:
    """Remember the SHA-256 of a file that somebody has computed while writing it."""
    note = about_file("digests", path)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=note.parent)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{_state(path)} {digest}\n")
        os.replace(name, note)
    except OSError:
        # A cache that cannot be written costs time, not correctness.
        return


def _state(path: Path) -> str:
    found = path.stat()
    return digest_of({"path": str(path.absolute()), "size": found.st_size, "mtime_ns": found.st_mtime_ns})
