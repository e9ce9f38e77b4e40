import errno
from pathlib import Path

import pytest

from qbench.errors import ExportError
from qbench.export.folder import check_is_free, written_aside


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "to"
    with written_aside(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert (target / "a").read_text() == "a"
    assert [each.name for each in target.parent.iterdir()] == ["to"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with written_aside(tmp_path) as folder:
        (folder / "a").write_text("a")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_there_stays(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "to"
    if kind == "folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ExportError, match=f"to is a {'folder' if kind == 'folder' else 'file'}.*name a new folder"):
        check_is_free(target)
    with pytest.raises(ExportError), written_aside(target):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["to"]
    if kind == "folder":
        assert (target / "mine").read_text() == "mine"


def test_what_is_put_there_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "to"

    def write() -> None:
        with written_aside(target) as folder:
            (folder / "a").write_text("a")
            target.mkdir()
            (target / "mine").write_text("mine")

    with pytest.raises(ExportError, match="something in it"):
        write()
    assert [each.name for each in tmp_path.rglob("*")] == ["to", "mine"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "to is full: make room"),
        (
            OSError(errno.EROFS, "Read-only file system"),
            r"to cannot be written \(Read-only file system\): name another",
        ),
        (KeyboardInterrupt(), None),
    ],
)
def test_nothing_half_written_is_left(error: BaseException, sentence: str | None, tmp_path: Path) -> None:

    def write() -> None:
        with written_aside(tmp_path / "to") as folder:
            (folder / "a").write_text("a")
            raise error

    with pytest.raises(KeyboardInterrupt if sentence is None else ExportError, match=sentence):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="cannot be written"), written_aside(tmp_path / "file" / "to"):
        pass
    with pytest.raises(ExportError, match="cannot be written"), written_aside(tmp_path / ("x" * 300)):
        pass
