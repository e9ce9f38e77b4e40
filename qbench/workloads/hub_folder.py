"""Files of a repository on Hugging Face's hub, in huggingface_hub's own cache.

huggingface_hub finds repositories and says what is in them. The files themselves come through ``download``: since
version 1 huggingface_hub keeps nothing of a download that breaks off, and of what it receives over HTTP it checks the
size alone. The cache's layout is documented (huggingface.co/docs/huggingface_hub/guides/manage-cache): ``blobs`` holds
files under their git or LFS digest, ``snapshots/<commit>`` links to them, ``refs/<revision>`` holds a commit.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from qbench.errors import DataError
from qbench.workloads.disk_space import check_space
from qbench.workloads.download import Checksum, Remote, Report, download
from qbench.workloads.places import about_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

LISTING_SECONDS = 20.0
"""How long the hub may take to say what is in a repository."""
INDEX = ".index.json"
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFolder:
    """Some files of a repository.

    Attributes:
        repository: its id.
        revision: a commit, best of all, or a branch or tag.
        patterns: which files, as names or with ``*``; ``a|b`` stands for the first of them that is there, and ``a|``
            for a file that may be absent. Of an index of weights, the files that it names are wanted too.
    """

    repository: str
    revision: str
    patterns: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where it comes from."""
        return f"{self.repository} on Hugging Face's hub"

    def find(self) -> Path | None:
        """Return the snapshot's folder if all files that are wanted are in it; looks at this disk only."""
        commit = self._known_commit()
        if commit is None:
            return None
        folder = self._snapshot(commit)
        sizes = self._read_manifest(folder)
        if sizes is not None:
            return folder if all(_size(folder / name) == size for name, size in sizes.items()) else None
        # Somebody else fetched it: what is wanted of it is judged by what is there.
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        wanted, lacking = select(self.patterns, names)
        complete = not lacking and all((folder / shard).is_file() for shard in _shards(folder, wanted))
        return folder if wanted and complete else None

    def complaint(self) -> str:
        """Return what is wrong when nothing is found."""
        return f"{self.repository} is not in Hugging Face's cache, or not all of it ({self.folder})"

    def fetch(self, report: Report) -> str:
        """Make it be there.

        Raises:
            DataError: the hub cannot be reached or has no such repository or file, a file is not what the hub says, or
                there is no room.
        """
        if self.find() is not None:
            return ""
        commit, listed = self._listing()
        blobs = {name: self.folder / "blobs" / each.digest for name, each in listed.items()}
        wanted, lacking = select(self.patterns, listed)
        if lacking:
            raise DataError(f"{self.repository} at {self.revision} has no file {', '.join(lacking)}")
        wanted += self._shards(commit, wanted, listed, blobs)
        missing = [name for name in wanted if _size(blobs[name]) != listed[name].size]
        check_space(self.folder, sum(listed[name].size for name in missing), self.repository)
        total = sum(listed[name].size for name in wanted)
        done = total - sum(listed[name].size for name in missing)
        for name in missing:

            def report_all(received: int, _: int | None, before: int = done) -> None:
                report(before + received, total)

            blobs[name].unlink(missing_ok=True)  # what is there is not whole
            download(self._remote(commit, name, listed[name]), blobs[name], report_all)
            done += listed[name].size
        self._link(commit, {name: blobs[name] for name in wanted})
        return ""

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache, which need not exist."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / "--".join(["models", *self.repository.split("/")])

    def _snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def _known_commit(self) -> str | None:
        if COMMIT.fullmatch(self.revision):
            return self.revision
        try:
            return (self.folder / "refs" / self.revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):  # it was never fetched
            return None

    def _manifest(self, folder: Path) -> Path:
        patterns = sha256("\0".join(self.patterns).encode()).hexdigest()[:8]
        return about_file("hub", folder).with_suffix(f".{patterns}.json")

    def _read_manifest(self, folder: Path) -> dict[str, int] | None:
        try:
            found = json.loads(self._manifest(folder).read_text(encoding="utf-8"))["files"]
            return {str(name): int(size) for name, size in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # not fetched by qbench
            return None

    def _listing(self) -> tuple[str, dict[str, _Listed]]:
        """Return the commit that the revision stands for, and its files by name."""
        from huggingface_hub import HfApi, constants

        if constants.HF_HUB_OFFLINE:
            raise DataError(f"{self.origin} cannot be fetched: HF_HUB_OFFLINE forbids it")
        with _quiet_hub(self):
            info = HfApi(endpoint=constants.ENDPOINT).model_info(
                self.repository, revision=self.revision, files_metadata=True, timeout=LISTING_SECONDS
            )
        listed = {each.rfilename: _Listed.of(each, self) for each in info.siblings or []}
        if info.sha is None or not COMMIT.fullmatch(info.sha):
            raise DataError(f"{constants.ENDPOINT} does not say which commit of {self.repository} it has")
        return info.sha, listed

    def _remote(self, commit: str, name: str, listed: _Listed) -> Remote:
        from huggingface_hub import constants, get_token, hf_hub_url

        url = hf_hub_url(self.repository, name, revision=commit, endpoint=constants.ENDPOINT)
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        secrets = {"Authorization": f"Bearer {token}"} if token else {}
        return Remote(url, listed.size, listed.checksum, secrets)

    def _shards(
        self, commit: str, wanted: Sequence[str], listed: Mapping[str, _Listed], blobs: Mapping[str, Path]
    ) -> list[str]:
        """Return the files that indices among the wanted ones name; the indices are fetched for that."""
        indices = {name: blobs[name] for name in wanted if name.endswith(INDEX)}
        for name, blob in indices.items():
            download(self._remote(commit, name, listed[name]), blob, lambda done, total: None)
        shards = [each for name, blob in indices.items() for each in _named_by(name, blob) if each not in wanted]
        if absent := [name for name in shards if name not in listed]:
            raise DataError(f"{self.repository} at {self.revision} has no file {', '.join(absent)}, which it should")
        return shards

    def _link(self, commit: str, blobs: Mapping[str, Path]) -> None:
        """Make the snapshot; what is in it is written down first, so that half a snapshot is seen to be half."""
        folder = self._snapshot(commit)
        sizes = {name: _size(blob) for name, blob in blobs.items()}
        _write(self._manifest(folder), json.dumps({"repository": self.repository, "files": sizes}))
        for name, blob in blobs.items():
            link = folder / name
            if _size(link) == sizes[name]:
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            try:
                link.symlink_to(os.path.relpath(blob, link.parent))
            except OSError:  # some file systems have no links
                shutil.copyfile(blob, link)
        if self.revision != commit:
            _write(self.folder / "refs" / self.revision, commit)


@dataclass(frozen=True)
class _Listed:
    """What the hub says of a file."""

    size: int
    checksum: Checksum

    @property
    def digest(self) -> str:
        """Its name in the cache."""
        return self.checksum.digits

    @classmethod
    def of(cls, sibling: RepoSibling, folder: HubFolder) -> _Listed:
        path = PurePosixPath(sibling.rfilename)
        lfs: Any = sibling.lfs
        checksum = Checksum("sha256", lfs.sha256) if lfs else Checksum("git", sibling.blob_id or "")
        if sibling.size is None or not re.fullmatch("[0-9a-f]{40,64}", checksum.digits):
            raise DataError(f"the hub gives neither size nor digest of {path} in {folder.repository}")
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{folder.repository} has a file {str(path)!r}, which would lie outside its folder")
        return cls(sibling.size, checksum)


def select(patterns: Sequence[str], names: Collection[str]) -> tuple[list[str], list[str]]:
    """Return which of some files are wanted, and the patterns that none of them fits."""
    wanted: dict[str, None] = {}
    lacking = []
    for pattern in patterns:
        for alternative in pattern.split("|"):
            found = [name for name in names if fnmatchcase(name, alternative)]
            wanted |= dict.fromkeys(found)
            if found or not alternative:
                break
        else:
            lacking.append(pattern)
    return list(wanted), lacking


def _shards(folder: Path, names: Sequence[str]) -> list[str]:
    return [shard for name in names if name.endswith(INDEX) for shard in _named_by(name, folder / name)]


def _named_by(name: str, path: Path) -> list[str]:
    """Return the files that an index of weights names; they lie beside it."""
    try:
        files = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        strange = [each for each in files if each != PurePosixPath(each).name or each in ("", "..") or "\0" in each]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no index of weights ({type(error).__name__}: {error})") from error
    if strange:
        raise DataError(f"{path} is no index of weights: {strange[0]!r} does not lie beside it")
    return sorted(str(PurePosixPath(name).with_name(each)) for each in files)


def _size(path: Path) -> int:
    """Return the size of a file, -1 if there is none; a link that leads nowhere is none."""
    return path.stat().st_size if path.is_file() else -1


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


@contextmanager
def _quiet_hub(folder: HubFolder) -> Iterator[None]:
    """Say what huggingface_hub says in one sentence, and keep what it logs of its attempts to itself."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    repository = folder.repository
    before = get_verbosity()
    set_verbosity(logging.CRITICAL)
    try:
        yield
    except errors.HFValidationError as error:
        raise DataError(f"{repository!r} is no name of a repository, such as CompVis/stable-diffusion-v1-4") from error
    except errors.GatedRepoError as error:
        raise DataError(
            f"{repository} is open only to those who accept its conditions: do so at {constants.ENDPOINT}/{repository} "
            "and log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"{constants.ENDPOINT} has no repository {repository!r} that you may see: check the name, or log in with "
            "`hf auth login` if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{repository} has no revision {folder.revision!r}") from error
    except Exception as error:  # of whichever client huggingface_hub uses
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip()
        raise DataError(f"{constants.ENDPOINT} cannot be reached or used for {repository} ({reason})") from error
    finally:
        set_verbosity(before)
