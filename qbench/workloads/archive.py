"""Taking named files out of an archive: no other file, to no other place, and all of them or none."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from qbench.errors import DataError

CHUNK_BYTES = 2**20
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


def extract(archive: Path, members: Sequence[str], folder: Path) -> dict[str, str]:
    """Write some members of a .zip or .tar.gz to a folder, and return the SHA-256 of each.

    A member is found by its path in the archive, or by the end of it where that is unique. It is written under the name
    that was asked for, whatever the archive says.

    Raises:
        DataError: the archive is damaged or is none, or has no such regular file.
    """
    for member in members:
        if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
            raise DataError(f"{member!r} would be written outside the folder that {archive.name} is unpacked to")
    with _open(archive) as (names, open_member):
        found = {member: _found(archive, member, names) for member in members}
        return {
            member: _written(archive, open_member(name), folder / member, names[name]) for member, name in found.items()
        }


def extracted_bytes(archive: Path, members: Sequence[str]) -> int:
    """Return how much room some members take.

    Raises:
        DataError: as for ``extract``.
    """
    with _open(archive) as (names, _):
        return sum(names[_found(archive, member, names)] for member in members)


class _OpenMember:
    """Opens a member of an archive by its name."""

    def __init__(self, archive: zipfile.ZipFile | tarfile.TarFile) -> None:
        self._archive = archive

    def __call__(self, name: str) -> IO[bytes]:
        """Return its content."""
        if isinstance(self._archive, zipfile.ZipFile):
            return self._archive.open(name)
        opened = self._archive.extractfile(name)
        assert opened is not None  # only regular files are offered
        return opened


@contextmanager
def _open(path: Path) -> Iterator[tuple[Mapping[str, int], _OpenMember]]:
    """Give the sizes of regular files by name, and what opens one."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                yield {each.filename: each.file_size for each in zipped.infolist()}, _OpenMember(zipped)
        else:
            with tarfile.open(path) as tarred:
                yield _regular_files(path, tarred), _OpenMember(tarred)
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is damaged or no archive ({reason}): delete it, and it is fetched anew") from error


def _regular_files(path: Path, tarred: tarfile.TarFile) -> dict[str, int]:
    try:
        return {each.name: each.size for each in tarred if each.isreg()}
    except (OSError, OverflowError) as error:  # a size that leads nowhere
        raise tarfile.ReadError(f"{path.name}: {error}") from error


def _found(archive: Path, member: str, names: Mapping[str, int]) -> str:
    if member in names:
        return member
    ending = PurePosixPath(member).parts
    like = [name for name in names if PurePosixPath(name).parts[-len(ending) :] == ending]
    if len(like) == 1:
        return like[0]
    held = ", ".join(sorted(names)[:5])
    raise DataError(f"{archive} has {'no' if not like else 'more than one'} file {member!r}; it holds {held}")


def _written(archive: Path, source: IO[bytes], target: Path, size: int) -> str:
    hashing = hashlib.sha256()
    written = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            hashing.update(chunk)
            written += file.write(chunk)
    if written != size:
        raise DataError(f"{archive} is damaged: {target.name} has {written:,} bytes in place of {size:,}")
    return hashing.hexdigest()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder that gets its name when the block ends well, and goes when it does not."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        if hasattr(os, "sync"):
            os.sync()  # once: thousands of small files would take half a minute one by one
        shutil.rmtree(folder, ignore_errors=True)  # what lies there was found wanting
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
