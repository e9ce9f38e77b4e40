"""Downloading one file over HTTP: resumed, checked, and under its name only when it is whole.

Bytes go to ``<name>.part``, which is kept when a download breaks off and continued by the next one. The libraries at
hand do less: torch.hub neither resumes nor checks sizes, and huggingface_hub throws away what it has when a process
ends and checks nothing but the size.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qbench.errors import DataError
from qbench.workloads.disk_space import check_space, size_text
from qbench.workloads.places import about_file

if TYPE_CHECKING:
    from collections.abc import Iterator

Report = Callable[[int, int | None], None]
"""Is told how many bytes are there, and of how many; None where the server does not say."""

CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 5
"""How often in a row a server may fail to send a single byte."""
PAUSE_SECONDS = 2.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that may be others in a moment."""


@dataclass(frozen=True)
class Checksum:
    """What the bytes of a file must come to.

    Attributes:
        kind: ``git`` is the name that git gives a file: SHA-1 of its size and content.
        digits: hexadecimal; of a SHA-256 as many of the first ones as were published.
    """

    kind: Literal["sha256", "git"]
    digits: str

    def of(self, path: Path) -> str:
        """Return what a file comes to."""
        hashing = hashlib.sha256()
        if self.kind == "git":
            hashing = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                hashing.update(chunk)
        return hashing.hexdigest()

    def fits(self, digits: str) -> bool:
        """Return whether a digest is the one that was published."""
        return digits.startswith(self.digits.lower())


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
        url: where.
        size: its bytes; None if nobody said.
        checksum: None if none was published.
        secrets: headers that go to this server and to none that it refers to.
        extra_bytes: what else will be needed on the disk beside it, such as for unpacking.
    """

    url: str
    size: int | None = None
    checksum: Checksum | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra_bytes: int = 0


class _Broken(Exception):
    """The server did not send what it should have; it may the next time."""


def download(remote: Remote, path: Path, report: Report) -> None:
    """Fetch a file to a path, unless it is there; whoever else fetches the same is waited for.

    Raises:
        DataError: it cannot be reached, is another file than was published, or there is no room for it.
    """
    from filelock import FileLock

    part = path.with_name(f"{path.name}.part")
    lock = about_file("locks", path)
    try:
        for folder in (path.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if path.exists():
                return
            _fill(remote, part, report)
            _check(remote, part)
            _publish(part, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{path.parent}: the disk is full; make room, and the same command goes on") from error
        raise DataError(f"{path} cannot be written ({error.strerror or error})") from error


def _fill(remote: Remote, part: Path, report: Report) -> None:
    """Receive until nothing is missing."""
    import ssl
    from http.client import HTTPException
    from urllib.error import URLError

    fruitless = 0
    was_reached = False
    while True:
        before = _length(part)
        if remote.size is not None and before == remote.size:
            return
        try:
            with _opened(remote, part) as response:
                was_reached = True
                _receive(response, remote, part, report)
            return
        except URLError as error:  # nobody is there: no reason to wait, unless somebody was a moment ago
            if not was_reached:
                raise DataError(f"{remote.url} cannot be reached ({_reason(error)})") from error
            broken: Exception = error
        except (_Broken, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            broken = error
        fruitless = fruitless + 1 if _length(part) <= before else 1
        if fruitless >= ATTEMPTS:
            there = f"{size_text(_length(part))} of it are kept, and the same command goes on from there"
            raise DataError(f"{remote.url} broke off ({_reason(broken)}): {there}") from broken
        time.sleep(PAUSE_SECONDS * fruitless)


def _opened(remote: Remote, part: Path) -> Any:
    """Ask for what is missing, or for everything where nobody could tell whether the rest belongs to the part."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    request = Request(remote.url, headers={"User-Agent": "qbench", "Accept-Encoding": "identity"})
    for name, value in remote.secrets.items():
        request.add_unredirected_header(name, value)
    start = _length(part)
    if start:
        # What has a checksum is checked as a whole; of anything else the server must say that it is the same as before.
        validator = _read_note(part).get(remote.url)
        if remote.checksum is not None or validator:
            request.add_header("Range", f"bytes={start}-")
        if remote.checksum is None and validator:
            request.add_header("If-Range", validator)
    try:
        return urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # there is no such rest
            _drop(part)
            raise _Broken("the server has less of it than before") from error
        if error.code in PASSING:
            raise _Broken(f"the server answers {error.code} {error.reason}") from error
        raise DataError(f"{remote.url} cannot be fetched: the server answers {error.code} {error.reason}") from error


def _receive(response: Any, remote: Remote, part: Path, report: Report) -> None:
    start, total = _extent(response)
    if start and start != _length(part):
        raise _Broken("the server sends another part than was asked for")
    if remote.size is not None and total is not None and total != remote.size:
        raise DataError(
            f"{remote.url} is another file than was published: it has {total:,} bytes instead of {remote.size:,}"
        )
    if remote.checksum is None and response.headers.get_content_type() == "text/html":
        raise DataError(f"{remote.url} gives a web page in place of the file: open it in a browser to see why")
    check_space(part.parent, max((total or 0) - start, 0) + remote.extra_bytes, remote.url)
    _write_note(part, remote.url, response.headers)
    done = start
    report(done, total)
    with part.open("ab" if start else "wb") as file:
        for chunk in _chunks(response):
            file.write(chunk)
            done += len(chunk)
            report(done, total)
    if total is not None and done < total:
        raise _Broken(f"the connection was closed after {done:,} of {total:,} bytes")


def _chunks(response: Any) -> Iterator[bytes]:
    while chunk := response.read(CHUNK_BYTES):
        yield chunk


def _extent(response: Any) -> tuple[int, int | None]:
    """Return where the content of an answer begins in the file, and how long the file is."""
    if response.status == 206:
        extent, _, total = response.headers.get("Content-Range", "").rpartition("/")
        start = extent.removeprefix("bytes ").partition("-")[0]
        if not start.isdecimal():
            raise _Broken("the server does not say which part it sends")
        return int(start), int(total) if total.isdecimal() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _check(remote: Remote, part: Path) -> None:
    """Refuse what is not the file that was published; nothing of it is kept."""
    size = _length(part)
    if remote.size is not None and size != remote.size:
        _drop(part)
        raise DataError(
            f"{remote.url} is another file than was published: {size:,} bytes came instead of {remote.size:,}; nothing "
            "of it is kept"
        )
    if remote.checksum is None:
        return
    found = remote.checksum.of(part)
    if not remote.checksum.fits(found):
        _drop(part)
        name = {"sha256": "SHA-256", "git": "git's SHA-1"}[remote.checksum.kind]
        raise DataError(
            f"what came from {remote.url} is damaged or another file: its {name} begins with "
            f"{found[: len(remote.checksum.digits)][:16]} and not with {remote.checksum.digits[:16]}; nothing of it is "
            "kept, so try again"
        )


def _publish(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    _note(part).unlink(missing_ok=True)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    """Where the server's name for the version that a part belongs to is written down."""
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, str]:
    try:
        found = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # without it the download starts again
        return {}
    return found if isinstance(found, dict) else {}


def _write_note(part: Path, url: str, headers: Any) -> None:
    tags = (headers.get("ETag", "W/"), headers.get("Last-Modified"))
    validator = next((each for each in tags if each and not each.startswith("W/")), None)  # weak tags tell no bytes
    _note(part).write_text(json.dumps({url: validator} if validator else {}), encoding="utf-8")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
    return " ".join(str(text).split())
