"""Whether there is room for what is fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

from qbench.errors import DataError

RESERVE_BYTES = 500_000_000
"""What stays free on a disk."""


def free_bytes(folder: Path) -> int:
    """Return what is free on the disk where a folder lies, or will lie."""
    return shutil.disk_usage(existing_folder(folder)).free


def existing_folder(folder: Path) -> Path:
    """Return the innermost folder of a path that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what does not fit.

    Raises:
        DataError: a disk has less free than that and a reserve.
    """
    free = free_bytes(folder)
    if free < needed + RESERVE_BYTES:
        raise DataError(
            f"{what} needs {size_text(needed)} in {folder}, and {size_text(free)} are free of which "
            f"{size_text(RESERVE_BYTES)} stay free: make room there, or name another disk (QBENCH_DOWNLOADS, HF_HOME "
            "and TORCH_HOME name the folders)"
        )


def size_text(size: int | None) -> str:
    """Return a number of bytes as a person says it: ``95.6 MB``."""
    if size is None:
        return "size unknown"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
