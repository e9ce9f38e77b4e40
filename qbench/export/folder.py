"""A new folder that appears whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qbench.errors import ExportError
from qbench.store.store import is_about_space


def check_is_free(target: Path) -> None:
    """Refuse a place where there is something.

    Raises:
        ExportError: it is no empty folder, or cannot be looked at.
    """
    try:
        if target.is_dir() and not any(target.iterdir()):
            return
        if target.exists() or target.is_symlink():
            what = "is a folder with something in it" if target.is_dir() else "is a file"
            raise ExportError(f"{target} {what}, and nothing is overwritten: name a new folder")
    except OSError as error:
        raise _explained(error, target) from error


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give a folder to write into, and rename it to ``target`` at the end; of what is not finished nothing is left.

    Raises:
        ExportError: there is something at ``target``, or the disk does not take it.
    """
    check_is_free(target)
    place = target.resolve()
    aside = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        yield aside
        check_is_free(target)  # it may have been filled meanwhile
        with suppress(FileNotFoundError):
            place.rmdir()
        aside.rename(place)
    except OSError as error:
        raise _explained(error, target) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _explained(error: OSError, target: Path) -> ExportError:
    if is_about_space(error):
        return ExportError(f"the disk that is to hold {target} is full: make room, or name another folder")
    return ExportError(f"{target} cannot be written ({error.strerror or error}): name another folder")
