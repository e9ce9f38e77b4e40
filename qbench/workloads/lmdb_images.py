"""The images of an LMDB as LSUN publishes them: keys, and to each the bytes of a webp or jpg file.

The database is opened read-only and without a lock, so nothing is written beside it and a read-only disk will do; it
must not be written to by others at the same time.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.errors import DataError
from qbench.metrics.encoded_image import decoded_image
from qbench.workloads.pictures import Pictures

if TYPE_CHECKING:
    from PIL.Image import Image

_ONE_AT_A_TIME = threading.Lock()
"""LMDB must not be opened twice by one process."""


@dataclass(frozen=True)
class _Value:
    content: bytes
    place: str

    def decoded(self, channels: int) -> Image:
        return decoded_image(self.content, self.place, channels)


def lmdb_pictures(path: Path, limit: int | None = None) -> Pictures:
    """Return the images of an LMDB in the order of their keys.

    Keys and values are read once here, for the digest, and none is decoded; the keys stay in memory.

    Args:
        path: the folder that holds data.mdb, or such a file itself.
        limit: how many of the first ones; by default all.

    Raises:
        DataError: the package lmdb is not installed; there is no such database; it is damaged or empty.
    """
    keys: list[bytes] = []
    total = hashlib.sha256()
    with _transaction(path) as (transaction, state):
        for key, value in islice(transaction.cursor(), limit):
            keys.append(bytes(key))
            total.update(hashlib.sha256(key).digest() + hashlib.sha256(value).digest())
    if not keys:
        raise DataError(f"{path} holds no images: it is an LMDB without a single entry")
    return Pictures(str(path), len(keys), total.hexdigest(), partial(_take, path, keys, state))


def _take(path: Path, keys: Sequence[bytes], state: int, indices: Sequence[int]) -> list[_Value]:
    with _transaction(path) as (transaction, now):
        if now != state:
            raise DataError(f"{path} changed since it was first read: start again")
        return [_Value(bytes(transaction.get(keys[index])), _place(path, keys[index])) for index in indices]


def _place(path: Path, key: bytes) -> str:
    return f"{path}: the image {key.decode('ascii', 'backslashreplace')!r}"


@contextmanager
def _transaction(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield a transaction that reads without copying, and the number of the last one that wrote."""
    try:
        import lmdb
    except ImportError as error:
        raise DataError(
            f"{path} is an LMDB, and the package lmdb that reads them is not installed: `pip install 'qbench[lsun]'`"
        ) from error
    file = path / "data.mdb" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file} does not exist: name the folder of an LMDB, which holds a data.mdb")
    with _ONE_AT_A_TIME:
        try:
            with lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False) as environment:
                info = environment.info()
                # Pages that are not there would end the process when they are touched, not raise an error.
                if file.stat().st_size < (info["last_pgno"] + 1) * environment.stat()["psize"]:
                    raise DataError(f"{path} is not all there, as after an interrupted copy: fetch it again")
                with environment.begin(buffers=True) as transaction:
                    yield transaction, info["last_txnid"]
        except lmdb.Error as error:
            raise DataError(f"{path} cannot be read as an LMDB ({error})") from error
