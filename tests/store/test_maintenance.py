import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import DamagedArtefact
from qbench.identity import digest, file_digest
from qbench.store import Manifest, Store, collect_garbage, entries, verify


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, number: int = 0, kind: str = "sample", address: str | None = None, days: float = 0.0) -> str:
    """Publish an artefact of 1000 bytes, as old as said; return its address."""
    description: dict[str, Any] = {"stage": kind, "number": number}
    address = address or digest(description)
    with store.pending(address) as folder:
        (folder / "images.npy").write_bytes(bytes(1000))
        files = {"images.npy": file_digest(folder / "images.npy")}
        store.publish(folder, Manifest(kind, address, "micro", description, files, 1.0, 1.0, 1.0))
    then = time.time() - days * 86400
    os.utime(store.folder(kind, address), (then, then))
    return address


def leave_pending(store: Store, address: str, size: int = 500) -> Path:
    """Leave what a killed process leaves."""
    folder = store.root / "pending" / address
    folder.mkdir()
    (folder / "half.npy").write_bytes(bytes(size))
    return folder


def size_of(store: Store, kind: str, address: str) -> int:
    return sum(path.stat().st_size for path in store.folder(kind, address).iterdir())


def test_a_listing_is_sorted_and_tells_size_and_age(store: Store) -> None:
    young, old = put(store, 1, "weights"), put(store, 2, "sample", days=3)
    found = entries(store)
    assert [(entry.kind, entry.digest) for entry in found] == [("sample", old), ("weights", young)]
    assert [entry.bytes for entry in found] == [size_of(store, "sample", old), size_of(store, "weights", young)]
    assert found[0].age_days == pytest.approx(3, abs=0.01)
    assert found[1].age_days == pytest.approx(0, abs=0.01)
    assert entries(Store(store.root.parent / "empty")) == []


def test_garbage_is_what_was_half_written_or_set_aside(store: Store) -> None:
    kept, damaged = put(store, 1), put(store, 2)
    (store.folder("sample", damaged) / "images.npy").write_bytes(b"another")
    store.set_aside("sample", damaged)
    (aside,) = (store.root / "damaged").iterdir()
    leftover = leave_pending(store, digest({"half": 1}))
    expected = 500 + sum(path.stat().st_size for path in aside.iterdir())
    assert collect_garbage(store) == expected
    assert not aside.exists()
    assert not leftover.exists()
    assert store.get("sample", kept)
    assert collect_garbage(store) == 0


def test_what_another_process_computes_now_is_not_garbage(store: Store) -> None:
    code = """
import sys, time
from pathlib import Path
from qbench.store import Store
store = Store(Path(sys.argv[1]))
with store.claim(sys.argv[2]) as mine, store.pending(sys.argv[2]) as folder:
    (folder / "half.npy").write_bytes(bytes(500))
    print("there", flush=True)
    time.sleep(60)
"""
    address = digest({"half": 1})
    folder = store.root / "pending" / address
    command = [sys.executable, "-c", code, str(store.root), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        assert collect_garbage(store, older_than_days=0) == 0
        assert (folder / "half.npy").exists()
        process.kill()
        process.wait()
    assert collect_garbage(store) == 500
    assert not folder.exists()


def test_old_artefacts_go_when_asked(store: Store) -> None:
    young, old = put(store, 1, days=1), put(store, 2, days=8)
    assert collect_garbage(store) == 0
    expected = size_of(store, "sample", old)
    assert collect_garbage(store, older_than_days=7) == expected
    assert [entry.digest for entry in entries(store)] == [young]
    assert not store.has("sample", old)


def test_no_age_is_every_age(store: Store) -> None:
    put(store, 1)
    put(store, 2, days=8)
    collect_garbage(store, older_than_days=0)
    assert entries(store) == []


def test_an_old_artefact_that_is_claimed_stays(store: Store) -> None:
    old = put(store, 1, days=8)
    with Store(store.root).claim(old) as mine:
        assert mine
        assert collect_garbage(store, older_than_days=7) == 0
    assert store.has("sample", old)


def test_what_was_collected_can_be_computed_again(store: Store) -> None:
    address = put(store, 1)
    store.get("sample", address)
    collect_garbage(store, older_than_days=0)
    with pytest.raises(DamagedArtefact):
        store.get("sample", address)
    put(store, 1)
    assert store.get("sample", address)


def test_verify_finds_what_is_damaged_and_sets_it_aside(store: Store) -> None:
    sound, flipped, headless = put(store, 1), put(store, 2), put(store, 3)
    (store.folder("sample", flipped) / "images.npy").write_bytes(bytes(999) + b"x")
    (store.folder("sample", headless) / "manifest.json").unlink()
    found = verify(store)
    assert found.sound == 1
    assert len(found.damaged) == 2
    assert any("images.npy is not the file that was written" in reason for reason in found.damaged)
    assert any("manifest.json cannot be read" in reason for reason in found.damaged)
    assert [entry.digest for entry in entries(store)] == [sound]
    assert len(list((store.root / "damaged").iterdir())) == 2
    assert verify(store).sound == 1
    assert verify(store).damaged == ()


def test_verify_compares_the_address_with_the_description(store: Store) -> None:
    """Files and manifest agree, but they lie where another artefact belongs."""
    address = put(store, 1, address=digest({"something": "else"}))
    found = verify(store)
    assert found.sound == 0
    assert "does not describe what its address says" in found.damaged[0]
    assert not store.has("sample", address)


def test_verify_does_not_trust_what_was_looked_at_before(store: Store) -> None:
    address = put(store, 1)
    store.get("sample", address)
    (store.folder("sample", address) / "images.npy").write_bytes(b"")
    assert verify(store).sound == 0
    with pytest.raises(DamagedArtefact):
        store.get("sample", address)


def test_tracebacks_are_garbage(store: Store) -> None:
    path = store.keep_traceback("sample", digest({}), "x" * 300)
    assert collect_garbage(store) == 300
    assert not path.exists()


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    looking = Store(tmp_path / "nowhere", read_only=True)
    assert entries(looking) == []
    assert (verify(looking).sound, verify(looking).damaged) == (0, ())


def test_an_empty_store_is_sound(store: Store) -> None:
    assert (verify(store).sound, verify(store).damaged) == (0, ())
