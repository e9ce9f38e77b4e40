import io
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from qbench.errors import DataError
from qbench.workloads.address import Address
from qbench.workloads.download import ATTEMPTS
from qbench.workloads.places import Home, downloads_folder, torch_hub_folder

CONTENT = b"weights, all of them" * 100
DIGEST = sha256(CONTENT).hexdigest()


def silent(done: int, total: int | None) -> None:
    pass


@pytest.fixture
def publish(server: Any) -> Any:
    """Return a function that serves a file under a name and returns what it is served as."""
    from micro_server import File

    def put(name: str = "network.pth", content: bytes = CONTENT) -> str:
        server.files[f"/files/{name}"] = File(content)
        return f"{server.url}/files/{name}"

    return put


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class TestWhereFilesLie:
    @pytest.mark.parametrize(
        "variables",
        [
            {"TORCH_HOME": "/here"},
            {"TORCH_HOME": "~/there", "XDG_CACHE_HOME": "/cache"},
            {"XDG_CACHE_HOME": "/cache"},
            {"HOME": "/home/somebody"},
        ],
    )
    def test_torch_hub_keeps_them_in_the_same_folder(self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]):
        for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert torch_hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"

    def test_downloads_have_a_folder_of_their_own(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("QBENCH_DOWNLOADS", "/somewhere")
        assert Address("https://Example.org/a/../b%20c/x.zip").path == Path("/somewhere/example.org/a/b c/x.zip")
        monkeypatch.delenv("QBENCH_DOWNLOADS")
        assert downloads_folder().parts[-2:] == ("qbench", "downloads")

    def test_two_archives_of_one_member_do_not_meet(self, caches: Path):
        first, second = (Address(f"https://example.org/{each}.zip", member="model.ckpt") for each in "ab")
        assert first.destination != second.destination
        assert first.destination.name == second.destination.name == "model.ckpt"

    def test_a_library_finds_what_it_knows(self, caches: Path):
        assert Address("https://example.org/x.pth", home=Home.TORCH_HUB).path == torch_hub_folder() / "x.pth"
        assert Address("https://example.org/x.pt", home=Home.CLIP).path == Path("~/.cache/clip/x.pt").expanduser()


class TestAFile:
    @pytest.mark.parametrize("digest", [DIGEST[:8], DIGEST])
    def test_it_is_fetched_once_and_then_found(self, publish: Any, server: Any, digest: str):
        address = Address(publish(), len(CONTENT), digest, home=Home.TORCH_HUB)
        assert address.find() is None
        assert address.complaint() == f"{torch_hub_folder() / 'network.pth'} is missing"
        assert address.fetch(silent) == ""
        assert address.find() == torch_hub_folder() / "network.pth"
        assert address.fetch(silent) == ""
        assert len(server.requests) == 1

    @pytest.mark.parametrize("content", [CONTENT[:-1], b"", b"<html>sign in first</html>"])
    def test_what_is_damaged_is_not_found_and_left_where_it_is(self, publish: Any, server: Any, content: bytes):
        address = Address(publish(), len(CONTENT), DIGEST, home=Home.TORCH_HUB)
        address.path.parent.mkdir(parents=True)
        address.path.write_bytes(content)
        assert address.find() is None
        with pytest.raises(DataError, match=r"network\.pth is damaged .* begins with \w{8} and not with .* delete it"):
            address.fetch(silent)
        assert address.path.read_bytes() == content
        assert server.requests == []

    def test_nothing_half_written_is_found(self, publish: Any, server: Any):
        address = Address(publish(), digest=DIGEST)
        server.breaks[:] = [100, *[0] * ATTEMPTS]
        with pytest.raises(DataError, match="broke off"):
            address.fetch(silent)
        assert address.find() is None
        server.breaks.clear()
        server.gone()
        address.fetch(silent)
        assert address.find() is not None
        assert server.ranges("/files/network.pth") == ["bytes=100-"]

    def test_a_changed_file_is_not_found_any_more(self, publish: Any):
        address = Address(publish(), digest=DIGEST)
        address.fetch(silent)
        address.path.write_bytes(CONTENT[::-1])
        assert address.find() is None

    def test_the_wrong_file_of_the_right_digits_is_told_by_its_size(self, publish: Any):
        address = Address(publish(), 5)
        address.path.parent.mkdir(parents=True)
        address.path.write_bytes(CONTENT)
        assert address.find() is None
        assert "(it has 2,000 bytes and not 5)" in address.complaint()


class TestWithoutAPublishedChecksum:
    def test_that_of_the_first_download_is_kept(self, publish: Any):
        address = Address(publish())
        remark = address.fetch(silent)
        assert remark.startswith(f"no checksum of {address.url} is published: what came has the SHA-256 {DIGEST}")
        assert address.path.with_name("network.pth.sha256").read_text() == f"{DIGEST}  network.pth\n"
        assert address.find() == address.path

    def test_what_comes_later_must_have_it_too(self, publish: Any):
        address = Address(publish())
        address.fetch(silent)
        address.path.unlink()
        publish(content=CONTENT[::-1])
        with pytest.raises(DataError, match="is damaged or another file"):
            address.fetch(silent)
        assert address.find() is None
        publish()
        assert address.fetch(silent) == ""
        assert address.find() == address.path

    def test_what_changed_on_this_disk_is_not_found(self, publish: Any):
        address = Address(publish())
        address.fetch(silent)
        address.path.write_bytes(CONTENT[::-1])
        assert address.find() is None

    def test_a_file_that_was_brought_by_hand_is_taken(self, publish: Any, server: Any):
        address = Address(publish())
        address.path.parent.mkdir(parents=True)
        address.path.write_bytes(CONTENT)
        assert address.find() == address.path
        assert server.requests == []


class TestArchives:
    def test_one_member_is_a_file(self, publish: Any):
        content = zipped({"lsun/model.ckpt": CONTENT, "readme": b""})
        address = Address(publish("lsun.zip", content), len(content), sha256(content).hexdigest(), member="model.ckpt")
        address.fetch(silent)
        found = address.find()
        assert found is not None
        assert (found.name, found.read_bytes()) == ("model.ckpt", CONTENT)
        assert not address.path.exists()  # it would take as much room again

    def test_several_members_are_a_folder(self, publish: Any):
        files = {"batches/1.bin": b"one", "batches/2.bin": b"two", "batches/readme": b""}
        address = Address(publish("cifar.tar.gz", tarred(files)), members=("batches/1.bin", "batches/2.bin"))
        address.fetch(silent)
        found = address.find()
        assert found is not None
        assert sorted(str(each.relative_to(found)) for each in found.rglob("*.bin")) == list(address.members)

    def test_what_is_fetched_is_fetched_once(self, publish: Any, server: Any):
        address = Address(publish("lsun.zip", zipped({"model.ckpt": CONTENT})), member="model.ckpt")
        assert "no checksum" in address.fetch(silent)
        assert address.fetch(silent) == ""
        assert len(server.requests) == 1

    @pytest.mark.parametrize("change", ["changed", "removed"])
    def test_a_member_that_was_touched_is_not_found(self, publish: Any, change: str):
        address = Address(publish("lsun.zip", zipped({"model.ckpt": CONTENT})), member="model.ckpt")
        address.fetch(silent)
        if change == "removed":
            address.destination.unlink()
        else:
            address.destination.write_bytes(CONTENT[::-1])
        assert address.find() is None
        address.fetch(silent)
        assert address.destination.read_bytes() == CONTENT

    def test_an_archive_that_was_brought_by_hand_needs_no_network(self, publish: Any, server: Any):
        address = Address(publish("lsun.zip"), member="model.ckpt")
        address.path.parent.mkdir(parents=True)
        address.path.write_bytes(zipped({"model.ckpt": CONTENT}))
        assert address.find() is None
        assert address.complaint() == f"{address.path} is there, and not unpacked"
        address.fetch(silent)
        assert address.find() == address.destination
        assert address.path.exists()
        assert server.requests == []

    def test_an_archive_without_the_member(self, publish: Any):
        address = Address(publish("lsun.zip", zipped({"other.ckpt": CONTENT})), member="model.ckpt")
        with pytest.raises(DataError, match=r"lsun\.zip has no file 'model\.ckpt'; it holds other\.ckpt"):
            address.fetch(silent)
        assert address.find() is None

    def test_half_an_archive(self, publish: Any):
        address = Address(publish("lsun.zip", zipped({"model.ckpt": CONTENT})[:-100]), member="model.ckpt")
        with pytest.raises(DataError, match=r"lsun\.zip is damaged or no archive"):
            address.fetch(silent)
        assert address.find() is None

    def test_a_newer_publication_is_another_one(self, publish: Any):
        content = zipped({"model.ckpt": CONTENT})
        Address(publish("lsun.zip", content), member="model.ckpt").fetch(silent)
        newer = Address(publish("lsun.zip", content), digest="0" * 64, member="model.ckpt")
        assert newer.find() is None

    def test_no_room_for_unpacking(self, publish: Any, monkeypatch: pytest.MonkeyPatch):
        address = Address(publish("lsun.zip", zipped({"model.ckpt": CONTENT})), member="model.ckpt")
        free = iter([10**12, 500_000_100])
        monkeypatch.setattr("qbench.workloads.disk_space.free_bytes", lambda folder: next(free))
        with pytest.raises(DataError, match=r"unpacking lsun\.zip needs 2\.0 kB"):
            address.fetch(silent)
        assert address.find() is None
