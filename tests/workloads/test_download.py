import errno
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import DataError
from qbench.workloads import download as module
from qbench.workloads.download import ATTEMPTS, Checksum, Remote, download

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def silent(done: int, total: int | None) -> None:
    pass


@pytest.fixture
def remote(server: Any) -> Remote:
    from micro_server import File

    server.files["/some/file.bin"] = File(CONTENT)
    return Remote(f"{server.url}/some/file.bin", len(CONTENT), Checksum("sha256", SHA256))


@pytest.fixture
def unknown(remote: Remote) -> Remote:
    """The same file, of which nobody published anything."""
    return Remote(remote.url)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "here" / "file.bin"


@pytest.fixture
def part(path: Path) -> Path:
    path.parent.mkdir()
    return path.with_name("file.bin.part")


def ranges(server: Any) -> list[str | None]:
    return server.ranges("/some/file.bin")


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_file_comes_whole_and_alone(server: Any, remote: Remote, path: Path):
    told: list[tuple[int, int | None]] = []
    download(remote, path, lambda *amounts: told.append(amounts))
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin"]
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    download(remote, path, silent)
    assert ranges(server) == [None]


def test_what_breaks_off_goes_on_where_it_was(server: Any, remote: Remote, path: Path):
    server.breaks[:] = [3000, 2000]
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=3000-", "bytes=5000-"]


def test_the_next_run_goes_on_too(server: Any, remote: Remote, path: Path):
    server.breaks[:] = [3000, *[0] * ATTEMPTS]
    with pytest.raises(DataError, match=r"broke off .* 3\.0 kB of it are kept, and the same command goes on from"):
        download(remote, path, silent)
    assert "file.bin" not in names(path)
    server.gone()
    server.breaks.clear()
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=3000-"]


def test_ctrl_c_keeps_what_has_come(server: Any, remote: Remote, path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4000)

    def press(done: int, total: int | None) -> None:
        if done == 8000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(remote, path, press)
    assert "file.bin" not in names(path)
    server.gone()
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=8000-"]


@pytest.mark.parametrize("left_over", [b"", CONTENT[:500]])
def test_a_wrong_checksum_leaves_nothing(server: Any, remote: Remote, path: Path, part: Path, left_over: bytes):
    server.files["/some/file.bin"].content = CONTENT[:-1] + b"x"
    part.write_bytes(left_over)
    with pytest.raises(DataError, match=rf"is damaged .* begins with \w+ and not with {SHA256[:16]}; nothing of it is"):
        download(remote, path, silent)
    assert names(path) == []


def test_a_damaged_part_is_found_out(server: Any, remote: Remote, path: Path, part: Path):
    part.write_bytes(b"x" * 500)
    with pytest.raises(DataError, match="is damaged"):
        download(remote, path, silent)
    assert names(path) == []
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT


def test_the_first_digits_of_a_checksum_are_enough(remote: Remote, path: Path):
    download(Remote(remote.url, None, Checksum("sha256", SHA256[:8].upper())), path, silent)
    assert path.read_bytes() == CONTENT


def test_what_git_calls_a_file(tmp_path: Path):
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert Checksum("git", "ce013625").fits(Checksum("git", "").of(tmp_path / "hello"))  # git hash-object


def test_another_size_is_refused_before_anything_comes(server: Any, remote: Remote, path: Path):
    server.files["/some/file.bin"].content += b"more"
    with pytest.raises(DataError, match="another file than was published: it has 10,244 bytes instead of 10,240"):
        download(remote, path, silent)
    assert names(path) == []


class TestWithoutAChecksum:
    def test_the_server_must_say_that_the_version_is_the_same(self, server: Any, unknown: Remote, path: Path):
        server.breaks[:] = [3000]
        download(unknown, path, silent)
        assert path.read_bytes() == CONTENT
        assert [headers.get("If-Range") for _, _, headers in server.requests] == [None, '"1"']
        assert ranges(server) == [None, "bytes=3000-"]

    def test_another_version_starts_again(self, server: Any, unknown: Remote, path: Path):
        server.breaks[:] = [3000, *[0] * ATTEMPTS]
        with pytest.raises(DataError, match="broke off"):
            download(unknown, path, silent)
        server.breaks.clear()
        other = server.files["/some/file.bin"]
        other.content, other.etag = CONTENT[::-1], '"2"'
        download(unknown, path, silent)
        assert path.read_bytes() == CONTENT[::-1]

    @pytest.mark.parametrize("etag", [None, 'W/"1"'])
    def test_a_server_that_does_not_name_versions(self, server: Any, unknown: Remote, path: Path, etag: str | None):
        server.files["/some/file.bin"].etag = etag
        server.breaks[:] = [3000]
        download(unknown, path, silent)
        assert path.read_bytes() == CONTENT
        assert ranges(server) == [None, None]

    def test_a_part_that_nobody_knows_is_not_used(self, server: Any, unknown: Remote, path: Path, part: Path):
        part.write_bytes(b"x" * 500)
        download(unknown, path, silent)
        assert path.read_bytes() == CONTENT

    def test_a_web_page_is_not_the_file(self, server: Any, unknown: Remote, path: Path):
        server.files["/some/file.bin"].content_type = "text/html; charset=utf-8"
        with pytest.raises(DataError, match="gives a web page in place of the file"):
            download(unknown, path, silent)
        assert names(path) == []


def test_a_server_without_parts(server: Any, remote: Remote, path: Path, part: Path):
    server.files["/some/file.bin"].ranges = False
    part.write_bytes(CONTENT[:500])
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_too_long(server: Any, remote: Remote, path: Path, part: Path):
    part.write_bytes(CONTENT + b"too much")
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_whole(server: Any, remote: Remote, path: Path, part: Path):
    part.write_bytes(CONTENT)
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT
    assert server.requests == []


def test_a_busy_server_is_asked_again(server: Any, remote: Remote, path: Path):
    server.answers[:] = [503, 429]
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT


def test_a_server_that_is_busy_for_good(server: Any, remote: Remote, path: Path):
    server.answers[:] = [503] * ATTEMPTS
    with pytest.raises(DataError, match=r"broke off \(the server answers 503 Service Unavailable\)"):
        download(remote, path, silent)


@pytest.mark.parametrize("code", [403, 404])
def test_what_is_not_there(server: Any, remote: Remote, path: Path, code: int):
    server.answers[:] = [code]
    with pytest.raises(DataError, match=f"file.bin cannot be fetched: the server answers {code}"):
        download(remote, path, silent)
    assert len(server.requests) == 1


def test_nobody_is_there(caches: Path, path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file.bin"
        with pytest.raises(DataError, match=rf"{url} cannot be reached \(Connection refused\)"):
            download(Remote(url), path, silent)


def test_no_room_is_told_before_anything_comes(remote: Remote, path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("qbench.workloads.disk_space.free_bytes", lambda folder: 500_010_000)
    with pytest.raises(
        DataError, match=r"file.bin needs 10\.2 kB in .*here, and 500\.0 MB are free of which 500\.0 MB"
    ):
        download(remote, path, silent)
    assert names(path) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "here: the disk is full; make room, and the same command"),
        (OSError(errno.EIO, "Input/output error"), r"file\.bin cannot be written \(Input/output error\)"),
    ],
)
def test_a_disk_that_gives_out(
    server: Any, remote: Remote, path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
):
    def give_out(response: Any) -> Iterator[bytes]:
        yield response.read(1000)
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(module, "_chunks", give_out)
        with pytest.raises(DataError, match=message):
            download(remote, path, silent)
    download(remote, path, silent)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=1000-"]


def test_a_folder_that_cannot_be_made(remote: Remote, path: Path):
    path.parent.write_text("a file is in the way")
    with pytest.raises(DataError, match=r"file\.bin cannot be written \((File exists|Not a directory)\)"):
        download(remote, path, silent)


def test_secrets_go_to_no_other_server(server: Any, path: Path):
    from micro_server import File

    server.files["/door"] = File(location=f"{server.url}/store")
    server.files["/store"] = File(CONTENT)
    download(Remote(f"{server.url}/door", secrets={"Authorization": "Bearer me"}), path, silent)
    assert [(asked, headers.get("Authorization")) for _, asked, headers in server.requests] == [
        ("/door", "Bearer me"),
        ("/store", None),
    ]
