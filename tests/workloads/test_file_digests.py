import os
from hashlib import sha256
from pathlib import Path

import pytest

from qbench.errors import DataError
from qbench.workloads import file_digests
from qbench.workloads.file_digests import remember_digest, remembered_digest


@pytest.fixture
def read(caches: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read, one entry for each time; every file counts as large."""
    paths: list[Path] = []

    def file_digest(path: Path) -> str:
        paths.append(path)
        return sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(file_digests, "WORTH_REMEMBERING", 0)
    monkeypatch.setattr(file_digests, "file_digest", file_digest)
    return paths


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "weights.pth"
    found.write_bytes(b"weights")
    return found


def test_a_file_is_read_once(read: list[Path], path: Path):
    expected = sha256(b"weights").hexdigest()
    assert [remembered_digest(path), remembered_digest(path)] == [expected, expected]
    assert read == [path]


@pytest.mark.parametrize("content", [b"other..", b"longer weights"])
def test_a_changed_file_is_read_again(read: list[Path], path: Path, content: bytes):
    remembered_digest(path)
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (len(content) == before.st_size)))
    assert remembered_digest(path) == sha256(content).hexdigest()
    assert read == [path, path]


def test_what_is_known_already_is_not_read(read: list[Path], path: Path):
    remember_digest(path, "abc")
    assert remembered_digest(path) == "abc"
    assert read == []


@pytest.mark.parametrize("content", ["", "one", "three words here"])
def test_a_memory_that_makes_no_sense_is_no_memory(read: list[Path], path: Path, caches: Path, content: str):
    remembered_digest(path)
    (record,) = (caches / "downloads" / "digests").iterdir()
    record.write_text(content)
    assert remembered_digest(path) == sha256(b"weights").hexdigest()
    assert read == [path, path]


def test_a_memory_that_cannot_be_written_costs_time_only(read: list[Path], path: Path, caches: Path):
    (caches / "downloads").write_text("a file is in the way")
    assert remembered_digest(path) == remembered_digest(path) == sha256(b"weights").hexdigest()


def test_small_files_are_not_remembered(path: Path, caches: Path):
    remembered_digest(path)
    assert not (caches / "downloads").exists()


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere cannot be read"):
        remembered_digest(tmp_path / "nowhere")
