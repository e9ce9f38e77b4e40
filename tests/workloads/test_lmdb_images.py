import io
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qbench.errors import DataError
from qbench.workload import ImageSet
from qbench.workloads.reference_sets import reference_images
from qbench.workloads.reference_settings import PreprocessingSettings, ReferenceSettings

SQUARE = PreprocessingSettings(crop="center", size=4)


def encoded(seed: int, width: int = 8, height: int = 6, kind: str = "WEBP") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def write(path: Path, entries: Mapping[bytes, bytes]) -> Path:
    lmdb = pytest.importorskip("lmdb", reason="the package lmdb is not installed")
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)
    return path


def images(path: Path, **options: object) -> ImageSet:
    settings = ReferenceSettings(lmdb=str(path), preprocessing=SQUARE, **options)  # type: ignore[arg-type]
    return reference_images(settings, (3, 4, 4), "bedrooms")


@pytest.fixture
def bedrooms(tmp_path: Path) -> Path:
    """As LSUN has them: keys are digests, values webp files of all sizes."""
    entries = {b"c0ffee": encoded(2, 5, 9), b"0badcafe": encoded(0), b"beef": encoded(1, 7, 7, "JPEG")}
    return write(tmp_path / "bedroom_train_lmdb", entries)


def test_images_are_in_the_order_of_keys(bedrooms: Path) -> None:
    found = images(bedrooms)
    assert (found.name, found.count) == ("bedrooms", 3)
    read = found.read([2, 0])
    assert (read.shape, read.dtype) == ((2, 3, 4, 4), np.uint8)
    for row, content in zip(read, (encoded(2, 5, 9), encoded(0)), strict=True):
        image = Image.open(io.BytesIO(content))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((4, 4), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(row, np.asarray(square).transpose(2, 0, 1))


def test_nothing_is_written_beside_the_data(bedrooms: Path) -> None:
    before = {each.name: each.read_bytes() for each in bedrooms.iterdir()}
    (bedrooms / "lock.mdb").unlink()
    del before["lock.mdb"]
    bedrooms.chmod(0o555)
    images(bedrooms).read([0])
    assert {each.name: each.read_bytes() for each in bedrooms.iterdir()} == before


def test_the_file_itself_may_be_named(bedrooms: Path) -> None:
    assert images(bedrooms / "data.mdb").digest == images(bedrooms).digest


def test_the_digest_is_of_entries_and_not_of_pages(bedrooms: Path, tmp_path: Path) -> None:
    entries = {b"0badcafe": encoded(0), b"beef": encoded(1, 7, 7, "JPEG"), b"c0ffee": encoded(2, 5, 9)}
    same = images(write(tmp_path / "same", entries)).digest
    renamed = images(write(tmp_path / "renamed", {b"1badcafe": encoded(0), **dict(list(entries.items())[1:])})).digest
    other = images(write(tmp_path / "other", {**entries, b"beef": encoded(5)})).digest
    assert images(bedrooms).digest == same
    assert len({same, renamed, other, images(bedrooms, limit=2).digest}) == 4


def test_only_what_is_asked_for_is_decoded(bedrooms: Path) -> None:
    write(bedrooms, {b"dead": b"no image"})
    found = images(bedrooms)
    assert found.read([0, 1, 2]).shape == (3, 3, 4, 4)
    with pytest.raises(DataError) as caught:
        found.read([3])
    assert str(caught.value) == (
        f"{bedrooms}: the image 'dead' cannot be read as an image (of no known format): remove it or write it again"
    )


def test_the_first_ones_only(bedrooms: Path) -> None:
    assert images(bedrooms, limit=2).count == 2
    with pytest.raises(DataError, match="holds 3 images, and `limit` asks for 50,000"):
        images(bedrooms, limit=50_000)


def test_sizes_that_differ_are_told_of_the_image(bedrooms: Path) -> None:
    found = reference_images(ReferenceSettings(lmdb=str(bedrooms)), (3, 6, 8), "bedrooms")
    assert found.read([0]).shape == (1, 3, 6, 8)
    with pytest.raises(DataError, match="the image 'beef' is 7x7 pixels after preprocessing, and samples are 8x6"):
        found.read([1])


def test_a_database_that_became_another(bedrooms: Path) -> None:
    found = images(bedrooms)
    write(bedrooms, {b"beef": encoded(9)})
    with pytest.raises(DataError, match=r"bedroom_train_lmdb changed since it was first read: start again$"):
        found.read([0])


def test_an_empty_database(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images: it is an LMDB without a single entry"):
        images(write(tmp_path / "empty", {}))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95])
def test_a_database_cut_short(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "cut", {bytes([index]): encoded(index, 40, 40) for index in range(20)})
    file = path / "data.mdb"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(DataError, match=r"is not all there|cannot be read as an LMDB") as caught:
        images(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_database(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason="the package lmdb is not installed")
    with pytest.raises(DataError, match=r"data\.mdb does not exist: name the folder of an LMDB"):
        images(tmp_path)
    with pytest.raises(DataError, match=r"none does not exist: name the folder of an LMDB"):
        images(tmp_path / "none")
    (tmp_path / "bedroom.zip").write_bytes(b"PK\x03\x04" + bytes(50_000))
    with pytest.raises(DataError, match=r"bedroom\.zip cannot be read as an LMDB"):
        images(tmp_path / "bedroom.zip")


def test_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(
        DataError, match=r"the package lmdb that reads them is not installed: `pip install 'qbench\[lsun\]'`"
    ):
        images(tmp_path)
