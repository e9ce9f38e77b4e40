"""Files at a plain address, or files out of an archive there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from qbench.errors import DataError
from qbench.workloads.archive import extract, extracted_bytes, whole_folder
from qbench.workloads.disk_space import check_space
from qbench.workloads.download import Checksum, Remote, Report, download
from qbench.workloads.file_digests import WORTH_REMEMBERING, remember_digest, remembered_digest
from qbench.workloads.places import Home

MANIFEST = "contents.json"


@dataclass(frozen=True)
class Address:
    """A file that was published at an address.

    Where no checksum was published, that of the first download is kept in ``<file>.sha256``, and every later download
    must have it too.

    Attributes:
        url: where.
        size: its bytes; None if nobody says.
        digest: its SHA-256, hexadecimal, or as many of the first digits as were published; None if none was.
        member: the one file of a .zip or .tar.gz that is wanted.
        members: several such files; what is found then is a folder with them.
        home: whose folder it is kept in.
    """

    url: str
    size: int | None = None
    digest: str | None = None
    member: str | None = None
    members: tuple[str, ...] = ()
    home: Home = Home.DOWNLOADS

    @property
    def origin(self) -> str:
        """Where it comes from."""
        return self.url

    @property
    def file_name(self) -> str:
        """What the file is called."""
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]

    @property
    def path(self) -> Path:
        """Where the downloaded file lies; a file that was brought by hand is put there."""
        if self.home is not Home.DOWNLOADS:
            return self.home.folder / self.file_name
        parts = urlsplit(self.url)
        inner = [each for each in unquote(parts.path).split("/") if each not in ("", ".", "..")]
        return self.home.folder.joinpath((parts.hostname or parts.scheme).lower(), *inner)

    @property
    def folder(self) -> Path:
        """The folder that it is downloaded to, which need not exist."""
        return self.path.parent

    @property
    def destination(self) -> Path:
        """What ``find`` gives once everything is there: the file, the member, or the folder of members."""
        return self._contents / self.member if self.member else self._contents if self.members else self.path

    def is_it(self, digest: str) -> bool:
        """Return whether a SHA-256 is that of the published file; always where none was published."""
        return self.digest is None or digest.startswith(self.digest.lower())

    def find(self) -> Path | None:
        """Return where it is, if it is there, whole and the file that was published; looks at this disk only."""
        return self.destination if (self._has_contents() if self._wanted else self._has_file()) else None

    def complaint(self) -> str:
        """Return what is wrong when nothing is found."""
        if not self.path.is_file():
            return f"{self.destination} is missing"
        if self._wanted and self._has_file():
            return f"{self.path} is there, and not unpacked"
        found, expected = remembered_digest(self.path), self._expected()
        if not found.startswith(expected):
            told = f"its SHA-256 begins with {found[:8]} and not with {expected[:8]}"
        else:
            told = f"it has {self.path.stat().st_size:,} bytes and not {self.size or 0:,}"
        return f"{self.path} is damaged or another file ({told}): delete it, and it can be fetched anew"

    def fetch(self, report: Report) -> str:
        """Make it be there, and return what a user should know of it.

        Raises:
            DataError: it cannot be fetched, or is not what was published.
        """
        if self.find() is not None:
            return ""
        was_there = self.path.exists()
        if was_there and not self._has_file():
            raise DataError(self.complaint())
        download(Remote(self.url, self.size, self._checksum()), self.path, report)
        remark = self._noted()
        if self._wanted:
            self._unpack()
            if not was_there:
                self.path.unlink()
        return remark

    @property
    def _wanted(self) -> tuple[str, ...]:
        return (self.member,) if self.member else self.members

    @property
    def _contents(self) -> Path:
        return self.path.with_name(f"{self.path.name}.contents")

    @property
    def _first_digest(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sha256")

    def _expected(self) -> str:
        """Return what the SHA-256 must begin with: as published, else that of the first download, else nothing."""
        if self.digest is not None:
            return self.digest.lower()
        try:
            return self._first_digest.read_text(encoding="ascii").split()[0]
        except (OSError, ValueError, IndexError):  # it was never downloaded
            return ""

    def _checksum(self) -> Checksum | None:
        expected = self._expected()
        return Checksum("sha256", expected) if expected else None

    def _has_file(self) -> bool:
        if not self.path.is_file():
            return False
        if self.size is not None and self.path.stat().st_size != self.size:
            return False
        expected = self._expected()
        return not expected or remembered_digest(self.path).startswith(expected)

    def _has_contents(self) -> bool:
        try:
            manifest = json.loads((self._contents / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, Any] = manifest["files"]
            if not str(manifest["archive"]).startswith(self._expected()) or not set(self._wanted) <= set(files):
                return False
            return all(self._is_as_unpacked(name, files[name]) for name in self._wanted)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            DataError,
        ):  # not there, or not what was written there
            return False

    def _is_as_unpacked(self, name: str, known: Mapping[str, Any]) -> bool:
        """Return whether a member has not changed; of thousands of small ones, each would be long to read anew."""
        path = self._contents / name
        state = path.stat()
        if state.st_size != known["size"]:
            return False
        return bool(state.st_mtime_ns == known["mtime_ns"]) or remembered_digest(path) == known["sha256"]

    def _noted(self) -> str:
        """Note the digest of what has just come; where none was published, it is what later downloads must have."""
        digest = remembered_digest(self.path)
        if self._expected() or self.home is not Home.DOWNLOADS:
            return ""
        self._first_digest.write_text(f"{digest}  {self.file_name}\n", encoding="ascii")
        return (
            f"no checksum of {self.url} is published: what came has the SHA-256 {digest}, which {self._first_digest} "
            "keeps and every later download is checked against"
        )

    def _unpack(self) -> None:
        check_space(self.path.parent, extracted_bytes(self.path, self._wanted), f"unpacking {self.path.name}")
        with whole_folder(self._contents) as folder:
            digests = extract(self.path, self._wanted, folder)
            states = {name: (folder / name).stat() for name in digests}
            files: dict[str, dict[str, Any]] = {
                name: {"sha256": digest, "size": states[name].st_size, "mtime_ns": states[name].st_mtime_ns}
                for name, digest in digests.items()
            }
            manifest = {"archive": remembered_digest(self.path), "url": self.url, "files": files}
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for name, digest in digests.items():
            if files[name]["size"] >= WORTH_REMEMBERING:
                remember_digest(self._contents / name, digest)
