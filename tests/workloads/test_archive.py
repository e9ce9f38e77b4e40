import io
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from qbench.errors import DataError
from qbench.workloads.archive import extract, extracted_bytes, whole_folder

FILES = {"top/one.bin": b"one" * 100, "top/two.bin": b"two" * 50, "notes.txt": b"notes"}


@pytest.fixture(params=["zip", "tar.gz"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"some.{request.param}"
    if request.param == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in FILES.items():
                zipped.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as tarred:
            for name, content in FILES.items():
                add(tarred, name, content)
    return path


def add(tarred: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tarred.addfile(entry, io.BytesIO(content))


def test_the_members_that_are_wanted_and_no_others(archive: Path, tmp_path: Path):
    found = extract(archive, ["top/one.bin", "notes.txt"], tmp_path / "out")
    assert found == {name: sha256(FILES[name]).hexdigest() for name in ("top/one.bin", "notes.txt")}
    written = {str(each.relative_to(tmp_path / "out")): each for each in (tmp_path / "out").rglob("*.*")}
    assert {name: each.read_bytes() for name, each in written.items()} == {name: FILES[name] for name in found}
    assert extracted_bytes(archive, ["top/one.bin", "notes.txt"]) == 305


def test_the_end_of_a_path_is_enough_where_it_is_unique(archive: Path, tmp_path: Path):
    extract(archive, ["two.bin"], tmp_path / "out")
    assert (tmp_path / "out" / "two.bin").read_bytes() == FILES["top/two.bin"]


def test_a_member_that_is_not_there(archive: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"has no file 'model\.ckpt'; it holds notes\.txt, top/one\.bin, top/two\.bin"):
        extract(archive, ["model.ckpt"], tmp_path / "out")


def test_a_name_that_fits_twice(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as zipped:
        zipped.writestr("a/model.ckpt", b"a")
        zipped.writestr("b/model.ckpt", b"b")
    with pytest.raises(DataError, match=r"has more than one file 'model\.ckpt'"):
        extract(tmp_path / "some.zip", ["model.ckpt"], tmp_path / "out")


@pytest.mark.parametrize("name", ["../model.ckpt", "/tmp/model.ckpt", "a/../../model.ckpt"])
def test_nothing_is_written_outside(tmp_path: Path, name: str):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as zipped:
        zipped.writestr(name, b"escaped")
    with pytest.raises(DataError, match="would be written outside the folder"):
        extract(tmp_path / "some.zip", [name], tmp_path / "in" / "out")
    extract(tmp_path / "some.zip", ["model.ckpt"], tmp_path / "in" / "out")
    assert [each.name for each in tmp_path.rglob("model.ckpt")] == ["model.ckpt"]
    assert (tmp_path / "in" / "out" / "model.ckpt").read_bytes() == b"escaped"


def test_links_are_no_files(tmp_path: Path):
    with tarfile.open(tmp_path / "some.tar.gz", "w:gz") as tarred:
        link = tarfile.TarInfo("model.ckpt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tarred.addfile(link)
        add(tarred, "other", b"")
    with pytest.raises(DataError, match=r"has no file 'model\.ckpt'; it holds other"):
        extract(tmp_path / "some.tar.gz", ["model.ckpt"], tmp_path / "out")


def test_half_an_archive(archive: Path, tmp_path: Path):
    archive.write_bytes(archive.read_bytes()[:-150])
    with pytest.raises(DataError, match="is damaged or no archive"):
        extract(archive, list(FILES), tmp_path / "out")


def test_a_flipped_bit(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as zipped:
        zipped.writestr("model.ckpt", b"weights" * 100)
    content = bytearray((tmp_path / "some.zip").read_bytes())
    content[300] ^= 1
    (tmp_path / "some.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged or no archive \(Bad CRC"):
        extract(tmp_path / "some.zip", ["model.ckpt"], tmp_path / "out")


def test_no_archive_at_all(tmp_path: Path):
    (tmp_path / "some.zip").write_text("<html>")
    with pytest.raises(DataError, match="is damaged or no archive"):
        extract(tmp_path / "some.zip", ["model.ckpt"], tmp_path / "out")


def test_a_folder_is_there_as_a_whole_or_not_at_all(tmp_path: Path):
    def interrupted() -> None:
        with whole_folder(tmp_path / "out") as aside:
            (aside / "one").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    for name in ("old", "new"):
        with whole_folder(tmp_path / "out") as aside:
            (aside / name).touch()
    assert [each.name for each in tmp_path.rglob("*")] == ["out", "new"]
