"""The store's layout and its two promises: an artefact is whole or absent, and nobody computes one twice at once.

<store>/artefacts/<kind>/<digest>/     files and manifest.json
<store>/pending/<digest>/              being written by the holder of its lock; renamed into place when whole
<store>/damaged/<kind>-<digest>-<n>/   set aside: its files were not the ones that were written
<store>/locks/<digest>.lock            held by the process that computes the artefact
<store>/failures/<kind>-<digest>.txt   the traceback of a stage that raised or ran out of time
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qbench.errors import DamagedArtefact, StoreError
from qbench.store.artefact import MANIFEST, Artefact, Manifest, read_artefact, write_manifest

ENVIRONMENT_VARIABLE = "QBENCH_STORE"
NO_ROOM_BYTES = 1_000_000


def default_store_path() -> Path:
    """Return ``$QBENCH_STORE``, else a folder in the user's cache."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("qbench") / "store"


class Store:
    """A folder of artefacts, safe for several processes at once.

    Args:
        root: the folder; made if it is missing.
        read_only: only look; nothing is made, and a folder that is not there is an empty store.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, read_only: bool = False) -> None:
        self.root = root
        self._checked: set[str] = set()
        self._read: dict[str, tuple[tuple[int, int, int], Artefact]] = {}
        if read_only:
            return
        try:
            for name in ("artefacts", "pending", "damaged", "locks", "failures"):
                (root / name).mkdir(parents=True, exist_ok=True)
            probe = root / "pending" / f"probe-{uuid.uuid4().hex}"
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise store_error(error, root) from error

    def folder(self, kind: str, digest: str) -> Path:
        """Return where an artefact lies or would lie."""
        return Path(f"{self.root}/artefacts/{kind}/{digest}")  # at once: a plan asks for thousands

    def has(self, kind: str, digest: str) -> bool:
        """Whether an artefact is there, its files unchecked."""
        return os.path.isfile(f"{self.root}/artefacts/{kind}/{digest}/{MANIFEST}")

    def get(self, kind: str, digest: str) -> Artefact:
        """Return an artefact, its files compared with their digests once in the life of this object.

        Raises:
            DamagedArtefact: it is not there, or not what was written.
        """
        artefact = self._artefact(kind, digest)
        if digest not in self._checked:
            artefact.check()
            self._checked.add(digest)
        return artefact

    def manifest(self, kind: str, digest: str) -> Manifest:
        """Return the manifest of an artefact whose files nobody needs to look at.

        Raises:
            DamagedArtefact: it is not there or unreadable.
        """
        return self._artefact(kind, digest).manifest

    def _artefact(self, kind: str, digest: str) -> Artefact:
        """Return an artefact; its manifest is read again only if it is another file than before."""
        name = f"{kind}/{digest}"
        try:
            found = os.stat(f"{self.root}/artefacts/{name}/{MANIFEST}")
        except OSError:
            return read_artefact(self.folder(kind, digest))  # which says what is wrong
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._read.get(name)
        if known is None or known[0] != state:
            known = self._read[name] = (state, read_artefact(self.folder(kind, digest)))
        return known[1]

    def set_aside(self, kind: str, digest: str) -> None:
        """Move a damaged artefact out of the way, so that it is computed again.

        Nothing happens if another process computes it now, or has replaced it meanwhile by a sound one.
        """
        self._checked.discard(digest)
        with self.claim(digest) as mine:
            if not mine:
                return
            try:
                self.get(kind, digest)
            except DamagedArtefact:
                self.discard(self.folder(kind, digest))

    def discard(self, folder: Path) -> Path | None:
        """Move an artefact's folder among the damaged by one rename; return where it went, None if it is gone."""
        self._checked.discard(folder.name)
        target = self.root / "damaged" / f"{folder.parent.name}-{folder.name[:16]}-{uuid.uuid4().hex[:8]}"
        with translated_errors(self.root):
            try:
                folder.rename(target)
            except FileNotFoundError:
                return None
        return target

    def traceback_path(self, kind: str, digest: str) -> Path:
        """Return where it is written down why a stage raised, or where it was when its time was over."""
        return self.root / "failures" / f"{kind}-{digest[:16]}.txt"

    def keep_traceback(self, kind: str, digest: str, text: str) -> Path:
        """Write down why a stage raised, for whoever wants to mend it; return where."""
        path = self.traceback_path(kind, digest)
        with translated_errors(self.root):
            path.write_text(text, encoding="utf-8")
        return path

    @contextmanager
    def claim(self, digest: str) -> Iterator[bool]:
        """Claim an artefact for computing.

        Yields:
            Whether the claim holds; False says that another process computes it now. A claim ends with its
            process, however that dies.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / "locks" / f"{digest}.lock", thread_local=False)  # whichever thread releases it
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise store_error(error, self.root) from error
        try:
            yield True
        finally:
            lock.release()

    def sweep(self, digest: str) -> None:
        """Remove what a process that has died left half-written of an artefact, unless another one computes it now.

        Raises:
            StoreError: the store cannot be written.
        """
        with self.claim(digest) as is_mine:
            if is_mine:
                shutil.rmtree(self.root / "pending" / digest, ignore_errors=True)

    @contextmanager
    def pending(self, digest: str) -> Iterator[Path]:
        """Give an empty folder to write a claimed artefact into; what is still there at the end is removed.

        Args:
            digest: an artefact that the caller has claimed; what a killed process left of it is removed.

        Raises:
            StoreError: the folder cannot be made. What its user raises is not touched.
        """
        folder = self.root / "pending" / digest
        with translated_errors(self.root):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, manifest: Manifest) -> Artefact:
        """Put a finished folder in its place by one rename, with the manifest that vouches for it.

        Args:
            folder: from ``pending``, all files written.
            manifest: says what they are.

        Raises:
            StoreError: the store cannot be written.
        """
        target = self.folder(manifest.kind, manifest.digest)
        with translated_errors(self.root):
            write_manifest(folder, manifest)
            for path in [*folder.rglob("*"), folder]:
                _flush(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # without a manifest, or it would not have been computed
                self.discard(target)
            folder.rename(target)
            _flush(target.parent)
        self._checked.add(manifest.digest)
        return read_artefact(target)

    def is_full(self) -> bool:
        """Whether so little room is left that a failed write is explained by it."""
        return shutil.disk_usage(self.root).free < NO_ROOM_BYTES


@contextmanager
def translated_errors(place: Path) -> Iterator[None]:
    """Turn what the operating system says of the store's own files into a StoreError."""
    try:
        yield
    except OSError as error:
        raise store_error(error, place) from error


def is_about_space(error: BaseException) -> bool:
    """Whether an error says that a disk or quota is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def store_error(error: OSError | None, place: Path) -> StoreError:
    """Return the sentence for an error of the operating system at ``place``; None stands for a full disk."""
    if error is None or is_about_space(error):
        return StoreError(
            f"the disk that holds {place} is full: make room (`qbench store gc` helps) and run the same command again; "
            "what is finished is kept"
        )
    reason = error.strerror or str(error)
    return StoreError(
        f"{place} cannot be written ({reason}): name another folder with --store or {ENVIRONMENT_VARIABLE}"
    )


def _flush(path: Path) -> None:
    """Ask the system to put a file or folder on the disk, so that a rename never precedes its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
