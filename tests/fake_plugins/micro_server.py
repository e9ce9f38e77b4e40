"""A server on this machine's loopback: plain files, and Hugging Face's hub as far as fetching needs it.

It notes every request, and can be told to break off, to fail, or to serve other bytes than it announced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class File:
    """What is served under a path.

    Attributes:
        content: its bytes.
        etag: what the server calls this version; None for a server that says nothing.
        ranges: whether it answers requests for a part with a part.
        content_type: what it says the content is.
        location: another path, to which it refers.
    """

    content: bytes = b""
    etag: str | None = '"1"'
    ranges: bool = True
    content_type: str = "application/octet-stream"
    location: str | None = None


@dataclass
class Server:
    """What is served and what was asked for.

    Attributes:
        files: by path.
        repositories: files of repositories on the hub, by id and name.
        breaks: after how many bytes of content it breaks off, for each of the next requests that get content.
        answers: status codes that it gives instead, to each of the next requests.
        requests: method, path and headers of each request.
    """

    url: str = ""
    files: dict[str, File] = field(default_factory=dict)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: int = 1000
    breaks: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def ranges(self, path: str) -> list[str | None]:
        """Return what part of a file each request asked for."""
        return [headers.get("Range") for method, asked, headers in self.requests if asked == path and method == "GET"]

    def gone(self) -> None:
        """Forget what was asked for."""
        self.requests.clear()


def git_digest(content: bytes) -> str:
    """Return what git calls a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server_state: Server

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, with_content: bool) -> None:
        state = self.server_state
        path = unquote(urlsplit(self.path).path)
        state.requests.append((self.command, path, dict(self.headers)))
        if state.answers:
            self.send_error(state.answers.pop(0))
        elif path in state.files:
            self._send(state.files[path], with_content, {})
        elif path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._resolve(path, with_content)
        else:
            self.send_error(404)

    def _describe(self, path: str) -> None:
        repository, _, revision = path.partition("/revision/")
        files = self.server_state.repositories.get(repository)
        if files is None or revision not in ("main", COMMIT):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound" if files is None else "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        siblings = []
        for name, content in files.items():
            entry = {"rfilename": name, "size": len(content), "blobId": git_digest(content)}
            if len(content) >= self.server_state.large:
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        listing = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
        self._send(File(listing, content_type="application/json"), True, {})

    def _resolve(self, path: str, with_content: bool) -> None:
        repository, _, rest = path[1:].partition("/resolve/")
        content = self.server_state.repositories.get(repository, {}).get(rest.partition("/")[2])
        if content is None:
            self.send_error(404)
            return
        is_large = len(content) >= self.server_state.large
        etag = hashlib.sha256(content).hexdigest() if is_large else git_digest(content)
        self._send(File(content, f'"{etag}"'), with_content, {"X-Repo-Commit": COMMIT})

    def _send(self, file: File, with_content: bool, headers: dict[str, str]) -> None:
        if file.location is not None:
            self.send_response(302)
            self.send_header("Location", file.location)
            self.end_headers()
            return
        start, size = 0, len(file.content)
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, file.etag)
        if asked and file.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= size:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        if file.etag:
            self.send_header("ETag", file.etag)
        self.send_header("Content-Type", file.content_type)
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if with_content:
            breaks = self.server_state.breaks
            end = start + breaks.pop(0) if breaks and file.content_type != "application/json" else size
            self.wfile.write(file.content[start:end])


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server while the block runs."""
    state = Server()
    handler = type("Handler", (_Handler,), {"server_state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            listening.shutdown()
            thread.join()
