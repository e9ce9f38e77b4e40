"""What the store's promises cost: an artefact is whole or absent, and what is read is what was written."""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from qbench.identity import digest, file_digest
from qbench.store import Manifest, Store

FILES = {f"{index}.bin": bytes([index]) * 200_000 for index in range(3)}


def write(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, number: int) -> str:
    description = {"number": number}
    address = digest(description)
    with store.claim(address), store.pending(address) as folder:
        write(folder)
        files = {name: file_digest(folder / name) for name in FILES}
        store.publish(folder, Manifest("sample", address, "", description, files, 1.0, 1.0, 100.0))
    return address


def test_putting_an_artefact_over_writing_its_files_to_the_disk(
    store: Store, tmp_path: Path, takes_at_most: Callable[..., bool]
) -> None:
    numbers: Iterator[int] = count()

    def plain() -> None:
        folder = tmp_path / f"plain-{next(numbers)}"
        folder.mkdir()
        write(folder)
        (folder / "manifest.json").write_text("{}")
        for path in [*folder.iterdir(), folder, tmp_path]:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        assert all(sha256(path.read_bytes()).digest() for path in folder.iterdir())

    compared = "an artefact put into the store over the same files written, flushed and hashed"
    assert takes_at_most(lambda: put(store, next(numbers)), plain, 2.0, compared)


def test_looking_again_at_artefacts_over_reading_their_manifests(
    store: Store, takes_at_most: Callable[..., bool]
) -> None:
    """A run asks for the same manifests again and again: for records, tables and estimates."""
    addresses = [put(store, number) for number in range(50)]

    def look() -> None:
        for address in addresses:
            assert store.manifest("sample", address).work == 1.0

    def read() -> None:
        for address in addresses:
            text = (store.folder("sample", address) / "manifest.json").read_text()
            assert json.loads(text)["work"] == 1.0

    look()
    assert takes_at_most(look, read, 0.6, "manifests that were looked at before over reading them")
