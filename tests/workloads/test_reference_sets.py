from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.metrics.image_folder import image_folder
from qbench.workload import ImageSet, ReferenceSet
from qbench.workloads.reference_sets import reference_images, reference_set, reference_statistics
from qbench.workloads.reference_settings import PreprocessingSettings, ReferenceSettings

SQUARE = PreprocessingSettings(crop="center", size=4)


def save(path: Path, width: int = 8, height: int = 6, mode: str = "RGB", seed: int = 0, **options: object) -> None:
    shape = (height, width) if mode == "L" else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "real"
    found.mkdir()
    for index, (width, height) in enumerate([(8, 6), (5, 9), (7, 7)]):
        save(found / f"{index}.png", width, height, seed=index)
    return found


def images(folder: Path, preprocessing: PreprocessingSettings = SQUARE, **options: object) -> ImageSet:
    settings = ReferenceSettings(images=str(folder), preprocessing=preprocessing, **options)  # type: ignore[arg-type]
    return reference_images(settings, (3, 4, 4), "real ones")


@pytest.fixture
def refused() -> Callable[..., str]:
    def refuse(settings: ReferenceSettings, shape: tuple[int, int, int] = (3, 4, 4), read: bool = False) -> str:
        indices = range(1 if read else 0)
        with pytest.raises(DataError) as caught:
            reference_images(settings, shape, "real ones").read(indices)
        text = str(caught.value)
        assert "\n" not in text
        return text

    return refuse


def test_images_of_all_sizes_become_one(folder: Path) -> None:
    found = images(folder)
    assert (found.name, found.count) == ("real ones", 3)
    read = found.read([2, 0])
    assert (read.shape, read.dtype) == ((2, 3, 4, 4), np.uint8)
    expected = Image.open(folder / "0.png").crop((1, 0, 7, 6)).resize((4, 4), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(read[1], np.asarray(expected).transpose(2, 0, 1))
    assert found.read([]).shape == (0, 3, 4, 4)


def test_untouched_images_are_those_of_the_folder(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / f"{index}.png", 4, 4, seed=index)
    found = reference_images(ReferenceSettings(images=str(tmp_path)), (3, 4, 4), "real ones")
    np.testing.assert_array_equal(found.read(range(3)), image_folder(tmp_path).read(range(3)))


def test_the_digest_is_of_bytes_order_number_and_preprocessing(folder: Path, tmp_path: Path) -> None:
    before = images(folder).digest
    folder.rename(tmp_path / "moved")
    folder = tmp_path / "moved"
    assert images(folder).digest == before
    others = [
        images(folder, limit=2).digest,
        images(folder, PreprocessingSettings(size=4)).digest,
        images(folder, PreprocessingSettings(crop="center", size=4, filter="box")).digest,
    ]
    save(folder / "1.png", 5, 9, seed=77)
    assert len({before, *others, images(folder).digest}) == 5


def test_only_the_first_ones(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"damaged, and not looked at")
    assert images(folder, limit=2).count == 2


def test_more_than_there_are(folder: Path, refused: Callable[..., str]) -> None:
    text = refused(ReferenceSettings(images=str(folder), limit=4, preprocessing=SQUARE))
    assert text == f"{folder} holds 3 images, and `limit` asks for 4: ask for fewer"


def test_files_by_name_in_their_order(folder: Path, refused: Callable[..., str]) -> None:
    settings = ReferenceSettings(images=str(folder), preprocessing=SQUARE)
    chosen = reference_images(settings, (3, 4, 4), "chosen", ["2.png", "0.png"])
    np.testing.assert_array_equal(chosen.read([0, 1]), images(folder).read([2, 0]))
    with pytest.raises(DataError) as caught:
        reference_images(settings, (3, 4, 4), "chosen", ["2.png", "7.png", "8.png"])
    assert str(caught.value) == (
        f"{folder} lacks 2 of the 3 images that are due, 7.png for one: put them there, under these names"
    )
    limited = settings.model_copy(update={"limit": 1})
    assert reference_images(limited, (3, 4, 4), "chosen", ["2.png", "7.png"]).count == 1


def test_grey_becomes_colour_and_not_the_other_way(folder: Path, refused: Callable[..., str]) -> None:
    save(folder / "3.png", mode="L")
    read = images(folder).read([3])
    assert (read[:, 0] == read[:, 1]).all()
    assert (read[:, 0] == read[:, 2]).all()
    settings = ReferenceSettings(images=str(folder), preprocessing=SQUARE)
    assert f"{folder / '0.png'} is in colour, and grey images are due" in refused(settings, (1, 4, 4), read=True)


def test_grey_stays_grey_among_grey(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 4, 4, "L")
    found = reference_images(ReferenceSettings(images=str(tmp_path)), (1, 4, 4), "real ones").read([0])
    np.testing.assert_array_equal(found[0, 0], np.asarray(Image.open(tmp_path / "a.png")))


def test_another_size_than_the_samples_is_told_before_any_work(folder: Path, refused: Callable[..., str]) -> None:
    advice = "pixels after preprocessing, and samples are 8x6: set `crop` and `size` of `preprocessing`"
    text = refused(ReferenceSettings(images=str(folder)), (3, 6, 8))
    assert text == f"{folder / '1.png'} is 5x9 {advice}"
    text = refused(ReferenceSettings(images=str(folder), preprocessing=SQUARE), (3, 6, 8))
    assert text == f"{folder}: each image is 4x4 {advice}"


@pytest.mark.parametrize(
    ("mode", "words"), [("CMYK", "is in CMYK colours"), ("RGBA", "has an alpha channel"), ("I;16", "more than 8 bits")]
)
def test_kinds_that_are_refused(folder: Path, refused: Callable[..., str], mode: str, words: str) -> None:
    Image.new(mode, (8, 8)).save(folder / "9.tif")
    text = refused(ReferenceSettings(images=str(folder), preprocessing=SQUARE))
    assert text.startswith(f"{folder / '9.tif'} ")
    assert words in text


def test_a_file_cut_short(folder: Path, refused: Callable[..., str]) -> None:
    save(folder / "0.jpg", 64, 64)  # before 0.png
    content = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(content[: len(content) // 2])
    text = refused(ReferenceSettings(images=str(folder), preprocessing=SQUARE), read=True)
    assert text.startswith(f"{folder / '0.jpg'} cannot be read as an image (")


def test_nothing_there(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert f"{tmp_path} holds no images" in refused(ReferenceSettings(images=str(tmp_path)))
    assert refused(ReferenceSettings()).startswith("the real images (real ones) are not given: say in `reference`")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "published.npz"
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    return path


def test_published_statistics(published: Path) -> None:
    settings = ReferenceSettings(statistics=str(published), statistics_samples=50_000)
    found = reference_set(settings, (3, 4, 4), "bedrooms", "inception", {})
    assert found == ReferenceSet("bedrooms", 50_000, file_digest(published), str(published))
    assert reference_statistics(ReferenceSettings(statistics=str(published)), "bedrooms", "inception", {}).samples == 0


def test_statistics_of_another_extractor(published: Path) -> None:
    settings = ReferenceSettings(statistics=str(published))
    with pytest.raises(DataError) as caught:
        reference_statistics(settings, "bedrooms", "open-clip", {})
    assert str(caught.value) == (
        f"{published} holds statistics of the extractor 'inception' and none of 'open-clip': give images, or leave out "
        "the metrics that need it (or set `statistics_of`)"
    )
    named = settings.model_copy(update={"statistics_of": "open-clip"})
    assert reference_statistics(named, "bedrooms", "open-clip", {}).path == str(published)


def test_our_own_statistics_say_whose_they_are(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    tensors = {"pooled.mean": np.zeros(2), "pooled.cov": np.eye(2)}
    save_file(tensors, path, {"extractor_sha256": "ab" * 32, "samples": "60000"})
    settings = ReferenceSettings(statistics=str(path))
    assert reference_statistics(settings, "own", "anything", {"weights": "ab" * 32}).samples == 60_000
    with pytest.raises(DataError, match="of the extractor 'other weights' and none of 'anything'"):
        reference_statistics(settings, "own", "anything", {"weights": "cd" * 32})


def test_images_cannot_be_had_from_statistics(published: Path, refused: Callable[..., str]) -> None:
    assert f"{published} holds statistics only" in refused(ReferenceSettings(statistics=str(published)))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_damaged_statistics_are_told_before_any_work(published: Path, content: bytes) -> None:
    published.write_bytes(content)
    with pytest.raises(DataError, match=r"published\.npz cannot be read as statistics"):
        reference_statistics(ReferenceSettings(statistics=str(published)), "bedrooms", "inception", {})
