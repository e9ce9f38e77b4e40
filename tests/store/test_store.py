import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from qbench.errors import DamagedArtefact, StoreError
from qbench.identity import digest, file_digest
from qbench.store import Artefact, Manifest, Store, default_store_path
from qbench.store.artefact import MANIFEST, write_manifest
from qbench.store.store import is_about_space, store_error, translated_errors

DESCRIPTION = {"stage": "sample", "parameters": {"seed": 0}}
DIGEST = digest(DESCRIPTION)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def manifest_of(folder: Path) -> Manifest:
    return Manifest(
        kind="sample",
        digest=DIGEST,
        group="micro",
        description=DESCRIPTION,
        files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
        seconds=1.5,
        work=10.0,
        peak_memory_mb=100.0,
        environment={"device": "cpu"},
    )


def put(store: Store) -> Artefact:
    """Compute and publish one artefact of two files, as an executor does."""
    with store.claim(DIGEST) as mine, store.pending(DIGEST) as folder:
        assert mine
        (folder / "images.npy").write_bytes(bytes(range(200)))
        (folder / "note.txt").write_text("a note")
        return store.publish(folder, manifest_of(folder))


@contextmanager
def other_process(store: Store, code: str) -> Iterator[subprocess.Popen[str]]:
    """Run code beside this process; it has ``store`` and ``digest`` and says a line when it is there."""
    preamble = "import sys, time\nfrom pathlib import Path\nfrom qbench.store import Store\n"
    preamble += "store, digest = Store(Path(sys.argv[1])), sys.argv[2]\n"
    command = [sys.executable, "-c", preamble + code, str(store.root), DIGEST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line == "there\n", process.communicate()[1]
            yield process
        finally:
            process.kill()


HOLD = "with store.claim(digest) as mine:\n    print('there' if mine else 'no', flush=True)\n    time.sleep(60)\n"
WRITE = """
with store.claim(digest), store.pending(digest) as folder:
    (folder / "half.npy").write_bytes(b"half")
    print("there", flush=True)
    time.sleep(60)
"""


def test_what_was_published_is_there(store: Store) -> None:
    assert not store.has("sample", DIGEST)
    published = put(store)
    assert store.has("sample", DIGEST)
    for found in (published, store.get("sample", DIGEST), Store(store.root).get("sample", DIGEST)):
        assert found.file("images.npy").read_bytes() == bytes(range(200))
        assert found.manifest.description == DESCRIPTION
        assert (found.manifest.kind, found.manifest.digest, found.manifest.seconds) == ("sample", DIGEST, 1.5)
    assert store.manifest("sample", DIGEST) == published.manifest
    assert list((store.root / "pending").iterdir()) == []


def test_another_kind_or_digest_is_not_there(store: Store) -> None:
    put(store)
    assert not store.has("weights", DIGEST)
    assert not store.has("sample", digest({}))
    with pytest.raises(DamagedArtefact):
        store.get("sample", digest({}))


class Stopped(BaseException):
    """As abrupt as Ctrl-C."""


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, Stopped])
def test_an_exception_while_writing_leaves_nothing(store: Store, stop: type[BaseException]) -> None:
    def write() -> None:
        with store.claim(DIGEST), store.pending(DIGEST) as folder:
            (folder / "images.npy").write_bytes(b"half")
            write_manifest(folder, manifest_of(folder))
            raise stop

    with pytest.raises(stop):
        write()
    assert not store.has("sample", DIGEST)
    assert list((store.root / "pending").iterdir()) == []
    put(store)


def test_what_is_not_published_is_gone(store: Store) -> None:
    with store.pending(DIGEST) as folder:
        (folder / "images.npy").write_bytes(b"whole")
    assert not folder.exists()
    assert not store.has("sample", DIGEST)


def test_the_pending_folder_starts_empty(store: Store) -> None:
    leftover = store.root / "pending" / DIGEST
    leftover.mkdir()
    (leftover / "half.npy").write_bytes(b"half")
    with store.pending(DIGEST) as folder:
        assert list(folder.iterdir()) == []


def test_a_killed_writer_leaves_nothing_half_valid(store: Store) -> None:
    with other_process(store, WRITE) as process:
        with store.claim(DIGEST) as mine:
            assert not mine
        process.kill()
        process.wait()
    assert not store.has("sample", DIGEST)
    put(store)
    assert sorted(path.name for path in store.folder("sample", DIGEST).iterdir()) == [
        "images.npy",
        MANIFEST,
        "note.txt",
    ]


def test_what_the_dead_left_is_swept_and_what_others_write_is_not(store: Store) -> None:
    pending = store.root / "pending" / DIGEST
    with other_process(store, WRITE) as process:
        store.sweep(DIGEST)
        assert list(pending.iterdir()) != []
        process.kill()
        process.wait()
    store.sweep(DIGEST)
    assert not pending.exists()
    store.sweep(DIGEST)  # and where there is nothing, nothing happens


def test_a_claim_keeps_other_processes_out_and_ends_with_its_process(store: Store) -> None:
    with other_process(store, HOLD) as process:
        with store.claim(DIGEST) as mine:
            assert not mine
        with store.claim(digest({"another": 1})) as mine:
            assert mine
        process.kill()
        process.wait()
        with store.claim(DIGEST) as mine:
            assert mine


def test_a_claim_ends_with_its_block(store: Store) -> None:
    for _ in range(2):
        with store.claim(DIGEST) as mine, Store(store.root).claim(DIGEST) as theirs:
            assert (mine, theirs) == (True, False)

    def fail() -> None:
        with store.claim(DIGEST):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (its own)
        fail()
    with store.claim(DIGEST) as mine:
        assert mine


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = [
    pytest.param(lambda folder: _flip(folder / "images.npy"), "images.npy is not the file", id="flipped"),
    pytest.param(lambda folder: os.truncate(folder / "images.npy", 100), "images.npy is not the file", id="truncated"),
    pytest.param(lambda folder: (folder / "images.npy").write_bytes(b""), "is not the file", id="emptied"),
    pytest.param(lambda folder: (folder / "note.txt").unlink(), "note.txt cannot be read", id="missing"),
    pytest.param(lambda folder: (folder / MANIFEST).unlink(), "manifest.json cannot be read", id="no manifest"),
    pytest.param(lambda folder: os.truncate(folder / MANIFEST, 50), "manifest.json cannot be read", id="half manifest"),
    pytest.param(lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), "cannot be read", id="binary manifest"),
    pytest.param(lambda folder: (folder / MANIFEST).write_text("[]"), "cannot be read", id="list as manifest"),
    pytest.param(lambda folder: _edit(folder, kind=None), "cannot be read", id="a key less"),
    pytest.param(lambda folder: _edit(folder, extra=1), "cannot be read", id="a key more"),
    pytest.param(lambda folder: _edit(folder, schema=2), "does not belong", id="another schema"),
    pytest.param(lambda folder: _edit(folder, digest=digest({})), "does not belong", id="another digest"),
    pytest.param(
        lambda folder: _edit(folder, description={"a": 1}, seal=None), "does not describe", id="another description"
    ),
    pytest.param(lambda folder: _edit(folder, seconds=9.0), "is not the file that was", id="another duration"),
    pytest.param(lambda folder: _edit(folder, files=3), "manifest.json", id="no files"),
]


def _edit(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_found(store: Store, damage: Callable[[Path], object], message: str) -> None:
    damage(put(store).folder)
    with pytest.raises(DamagedArtefact, match=message):
        Store(store.root).get("sample", DIGEST)


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_what_is_damaged_can_be_set_aside_and_computed_again(
    store: Store, damage: Callable[[Path], object], message: str
) -> None:
    damage(put(store).folder)
    store.set_aside("sample", DIGEST)
    assert [aside.name.startswith("sample-") for aside in (store.root / "damaged").iterdir()] == [True]
    assert not store.has("sample", DIGEST)
    put(store)
    assert store.get("sample", DIGEST).file("note.txt").read_text() == "a note"


def test_a_manifest_of_an_earlier_version_has_no_seal(store: Store) -> None:
    _edit(put(store).folder, seal=None)
    assert Store(store.root).get("sample", DIGEST).manifest.seconds == 1.5


def test_what_is_sound_is_not_set_aside(store: Store) -> None:
    """Another process may have replaced it since it was found damaged."""
    put(store)
    store.set_aside("sample", DIGEST)
    assert store.has("sample", DIGEST)
    assert list((store.root / "damaged").iterdir()) == []


def test_what_another_process_computes_is_not_set_aside(store: Store) -> None:
    _flip(put(store).folder / "images.npy")
    with Store(store.root).claim(DIGEST):
        store.set_aside("sample", DIGEST)
        assert store.has("sample", DIGEST)
    store.set_aside("sample", DIGEST)
    assert not store.has("sample", DIGEST)


def test_files_are_compared_once_in_the_life_of_a_store(store: Store) -> None:
    put(store)
    later = Store(store.root)
    later.get("sample", DIGEST)
    _flip(store.folder("sample", DIGEST) / "images.npy")
    later.get("sample", DIGEST)
    with pytest.raises(DamagedArtefact):
        Store(store.root).get("sample", DIGEST)


def test_damaged_artefacts_of_one_address_lie_side_by_side(store: Store) -> None:
    for _ in range(3):
        _flip(put(store).folder / "images.npy")
        store.set_aside("sample", DIGEST)
    assert len(list((store.root / "damaged").iterdir())) == 3


def test_an_artefact_without_manifest_does_not_stand_in_the_way(store: Store) -> None:
    """It is not there as far as ``has`` knows, so it is computed and published anew."""
    (put(store).folder / MANIFEST).unlink()
    assert not store.has("sample", DIGEST)
    put(store)
    assert store.get("sample", DIGEST)


def test_two_processes_may_set_one_artefact_aside(store: Store) -> None:
    """Both found it damaged; the second comes late and must not fall over."""
    other = Store(store.root)
    _flip(put(store).folder / "images.npy")
    store.set_aside("sample", DIGEST)
    with pytest.raises(DamagedArtefact):
        other.get("sample", DIGEST)
    other.set_aside("sample", DIGEST)
    assert other.discard(other.folder("sample", DIGEST)) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"the disk that holds .*store is full: make room"):
        put(store)
    monkeypatch.undo()
    assert not store.has("sample", DIGEST)
    assert list((store.root / "pending").iterdir()) == []
    put(store)


def test_whoever_says_that_a_disk_is_full_is_understood() -> None:
    assert all(is_about_space(OSError(number, "")) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    others = (OSError(errno.EACCES, ""), OSError("no number"), ValueError(errno.ENOSPC))
    assert not any(is_about_space(error) for error in others)
    assert "store is full: make room" in str(store_error(None, Path("store")))


@pytest.mark.parametrize(("free", "is_full"), [(0, True), (10_000, True), (10**9, False)])
def test_a_disk_without_room_is_full(store: Store, free: int, is_full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numpy and safetensors do not say why they could not write."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**10, used=0, free=free))
    assert store.is_full() is is_full


@pytest.mark.parametrize("depth", [("file",), ("file", "store"), ("file", "deep", "store")])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, depth: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot be written .*--store or QBENCH_STORE"):
        Store(tmp_path.joinpath(*depth))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
def test_a_place_where_nothing_can_be_made_is_told() -> None:
    """The system answers ENOENT there, not EACCES."""
    with pytest.raises(StoreError, match="cannot be written"):
        Store(Path("/proc/qbench-store"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_store_that_became_unwritable_is_told(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match=f"cannot be written .{os.strerror(number)}"):
        put(store)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.ENOSPC, errno.ENOENT])
def test_trouble_with_a_file_of_a_stage_is_not_the_stores(store: Store, number: int) -> None:
    """A stage that cannot read a plugin's file must fail its cells only, not stop the run over the store."""
    error = OSError(number, os.strerror(number), "/elsewhere/weights.bin")
    with pytest.raises(OSError, match="elsewhere") as caught, store.pending(DIGEST):
        raise error
    assert caught.value is error


def test_trouble_with_the_stores_own_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be written \(gone\)"), translated_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")
    with pytest.raises(ValueError, match="mine"), translated_errors(tmp_path):
        raise ValueError("mine")


def test_a_store_that_is_only_looked_at_is_not_touched(tmp_path: Path) -> None:
    looking = Store(tmp_path / "nowhere", read_only=True)
    assert not looking.has("sample", DIGEST)
    with pytest.raises(DamagedArtefact):
        looking.get("sample", DIGEST)
    assert list(tmp_path.iterdir()) == []
    put(Store(tmp_path / "store"))
    assert Store(tmp_path / "store", read_only=True).get("sample", DIGEST).manifest.digest == DIGEST


def test_tracebacks_are_kept(store: Store) -> None:
    path = store.keep_traceback("sample", DIGEST, "Traceback: ü")
    assert path.parent == store.root / "failures"
    assert path.read_text(encoding="utf-8") == "Traceback: ü"


def test_the_store_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QBENCH_STORE", str(tmp_path))
    assert default_store_path() == tmp_path
    monkeypatch.setenv("QBENCH_STORE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_store_path().parts[-2:] == ("qbench", "store")


def test_a_store_can_be_opened_again(store: Store) -> None:
    put(store)
    assert Store(store.root).has("sample", DIGEST)
    assert list((store.root / "pending").iterdir()) == []
