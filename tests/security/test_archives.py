"""Archives hold what they like; what is written is what was asked for, under that name, within one folder."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import DataError
from qbench.workloads.archive import extract

OUTSIDE = (
    "../evil",
    "../../evil",
    "/tmp/qbench-evil",
    "a/../../evil",
    "..",
    ".",
    "",
    "./../evil",
    "a\\..\\..\\evil",
    "c:evil",
)


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def tarred(path: Path, *members: tarfile.TarInfo, content: bytes = b"evil") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def everything(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*")}


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """The folder to unpack to, two below one that is looked at."""
    folder = tmp_path / "in" / "out"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_other_members_are_left_alone_wherever_they_lead(tmp_path: Path, inner: Path, name: str, kind: str):
    path = tmp_path / f"some.{kind}"
    if kind == "zip":
        zipped(path, {name or "x": b"evil", "good": b"evil"})
    else:
        tarred(path, tarfile.TarInfo(name), tarfile.TarInfo("good"))
    before = everything(tmp_path)
    extract(path, ["good"], inner)
    assert everything(tmp_path) - before == {"in/out/good"}
    assert not Path("/tmp/qbench-evil").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/qbench-evil", "a/../../evil", "..", "a/.."])
def test_a_name_that_is_asked_for_stays_inside(tmp_path: Path, inner: Path, name: str):
    path = zipped(tmp_path / "some.zip", {name: b"evil"})
    before = everything(tmp_path)
    with pytest.raises(DataError, match="would be written outside"):
        extract(path, [name], inner)
    assert everything(tmp_path) == before


def special(kind: bytes, target: str = "") -> Callable[[str], tarfile.TarInfo]:
    def make(name: str) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        return member

    return make


SPECIAL = {
    "symbolic link": special(tarfile.SYMTYPE, "/etc/passwd"),
    "symbolic link upwards": special(tarfile.SYMTYPE, "../../.."),
    "hard link": special(tarfile.LNKTYPE, "/etc/passwd"),
    "hard link to a member": special(tarfile.LNKTYPE, "good"),
    "character device": special(tarfile.CHRTYPE),
    "block device": special(tarfile.BLKTYPE),
    "pipe": special(tarfile.FIFOTYPE),
    "folder": special(tarfile.DIRTYPE),
    "contiguous": special(b"V"),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_none(tmp_path: Path, inner: Path, kind: str):
    path = tarred(tmp_path / "some.tar.gz", tarfile.TarInfo("good"), SPECIAL[kind]("model.ckpt"))
    before = everything(tmp_path)
    with pytest.raises(DataError, match=r"has no file 'model\.ckpt'"):
        extract(path, ["model.ckpt"], inner)
    assert everything(tmp_path) == before


def test_a_link_that_a_member_would_be_written_through(tmp_path: Path, inner: Path):
    """``a`` is a link to a folder outside, ``a/b`` a file: the link is never made, so the file lies inside."""
    path = tarred(
        tmp_path / "some.tar.gz", special(tarfile.SYMTYPE, str(tmp_path / "elsewhere"))("a"), tarfile.TarInfo("a/b")
    )
    (tmp_path / "elsewhere").mkdir()
    extract(path, ["a/b"], inner)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (inner / "a" / "b").read_bytes() == b"evil"
    assert not (inner / "a").is_symlink()


def test_a_symbolic_link_in_a_zip_is_its_text(tmp_path: Path, inner: Path):
    member = zipfile.ZipInfo("model.ckpt")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    extract(tmp_path / "some.zip", ["model.ckpt"], inner)
    assert not (inner / "model.ckpt").is_symlink()
    assert (inner / "model.ckpt").read_bytes() == b"/etc/passwd"


@pytest.mark.parametrize("size", [2**40, 2**33, 2**60])
def test_a_tar_that_declares_more_than_it_has(tmp_path: Path, inner: Path, size: int):
    member = tarfile.TarInfo("model.ckpt")
    member.size = size
    (tmp_path / "some.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"few")
    with pytest.raises(DataError, match="is damaged"):
        extract(tmp_path / "some.tar", ["model.ckpt"], inner)
    assert sum(each.stat().st_size for each in inner.rglob("*")) < 1000


def test_a_zip_that_declares_less_than_it_has(tmp_path: Path, inner: Path):
    """A bomb lies about its size: what goes beyond what was declared, and was made room for, is not written."""
    path = zipped(tmp_path / "some.zip", {"model.ckpt": bytes(50_000_000)})
    content = path.read_bytes()
    size = (50_000_000).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError, match="is damaged"):
        extract(path, ["model.ckpt"], inner)
    assert sum(each.stat().st_size for each in inner.rglob("*")) <= 1000


@pytest.mark.parametrize("shift", [30, 60])
def test_half_of_a_tar_header(tmp_path: Path, inner: Path, shift: int):
    path = tarred(tmp_path / "some.tar.gz", tarfile.TarInfo("good"))
    path.write_bytes(path.read_bytes()[:shift])
    with pytest.raises(DataError):
        extract(path, ["good"], inner)
    assert list(inner.iterdir()) == []


def test_a_name_with_nul_or_too_long(tmp_path: Path, inner: Path):
    path = zipped(tmp_path / "some.zip", {"good": b"evil"})
    for name in ("a\0b", "x" * 10_000):
        with pytest.raises(DataError, match="has no file"):
            extract(path, [name], inner)
    assert os.listdir(inner) == []
