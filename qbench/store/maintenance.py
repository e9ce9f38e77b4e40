"""Looking after a store: what it holds, what can go, and whether it is sound."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qbench.errors import DamagedArtefact
from qbench.store.artefact import read_artefact
from qbench.store.store import Store, translated_errors


@dataclass(frozen=True)
class StoreEntry:
    """One artefact as a listing shows it.

    Attributes:
        kind: the stage that made it.
        digest: its address.
        bytes: size of its files.
        age_days: days since it was written.
    """

    kind: str
    digest: str
    bytes: int
    age_days: float


@dataclass(frozen=True)
class Verification:
    """What a look at every artefact found.

    Attributes:
        sound: how many are what they should be.
        damaged: the reason for each of the others; these were set aside.
    """

    sound: int
    damaged: tuple[str, ...]


def entries(store: Store) -> list[StoreEntry]:
    """Return every artefact, sorted by kind and digest."""
    now = time.time()
    return [
        StoreEntry(folder.parent.name, folder.name, _size(folder), (now - folder.stat().st_mtime) / 86400)
        for folder in _folders(store)
    ]


def collect_garbage(store: Store, older_than_days: float | None = None) -> int:
    """Remove what was left half-written or set aside, tracebacks and, if asked, artefacts not newer than some days.

    Args:
        store: the store. What another process is computing now is not touched; what it reads may be, and is then
            computed again.
        older_than_days: also remove whole artefacts of at least this age.

    Returns:
        Bytes that became free.
    """
    freed = 0
    with translated_errors(store.root):
        for folder in _subfolders(store.root / "damaged"):
            freed += _remove(folder)
        for path in (store.root / "failures").glob("*.txt"):
            freed += path.stat().st_size
            path.unlink()
        for folder in _subfolders(store.root / "pending"):
            freed += _remove_if_free(store, folder)
        if older_than_days is not None:
            for entry in entries(store):
                if entry.age_days >= older_than_days:
                    freed += _remove_if_free(store, store.folder(entry.kind, entry.digest))
    return freed


def verify(store: Store) -> Verification:
    """Compare every artefact with its manifest, and its address with its description; set the damaged aside."""
    damaged = []
    sound = 0
    for folder in _folders(store):
        try:
            read_artefact(folder).check()
            sound += 1
        except DamagedArtefact as error:
            store.set_aside(folder.parent.name, folder.name)
            damaged.append(str(error))
    return Verification(sound, tuple(damaged))


def _folders(store: Store) -> Iterator[Path]:
    for kind in _subfolders(store.root / "artefacts"):
        yield from _subfolders(kind)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path) -> int:
    size = _size(folder)
    shutil.rmtree(folder)
    return size


def _remove_if_free(store: Store, folder: Path) -> int:
    with store.claim(folder.name) as mine:
        if not mine:
            return 0
        # By one rename out of the way first: a removal that is interrupted must not leave half an artefact.
        moved = store.discard(folder)
        return _remove(moved) if moved else 0
