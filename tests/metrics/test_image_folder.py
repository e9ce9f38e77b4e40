import os
import struct
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qbench.errors import DataError
from qbench.metrics.image_folder import files_digest, image_files, image_folder, image_stems


def images(count: int = 3, channels: int = 1, size: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size + 2), np.uint8)


def save(image: np.ndarray, path: Path, **options: object) -> None:
    picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(picture).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "pictures"
    found.mkdir()
    return found


@pytest.fixture
def refused(folder: Path) -> Callable[..., str]:
    """Return a function that opens the folder, which must be refused, and returns the one sentence."""

    def refuse(path: Path = folder, read: bool = False) -> str:
        with pytest.raises(DataError) as caught:
            image_folder(path).read([0]) if read else image_folder(path)
        text = str(caught.value)
        assert "\n" not in text
        assert "BytesIO" not in text
        return text

    return refuse


@pytest.mark.parametrize(("channels", "suffix"), [(3, "webp"), *product([1, 3], ["png", "bmp", "tif", "tiff", "PNG"])])
def test_pixels_are_those_that_were_stored(folder: Path, channels: int, suffix: str) -> None:
    stored = images(channels=channels)
    for index, image in enumerate(stored):
        save(image, folder / f"{index}.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    found = image_folder(folder)
    assert (found.name, found.count) == ("pictures", 3)
    read = found.read([0, 1, 2])
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, stored)


@pytest.mark.parametrize(("channels", "suffix"), [(1, "jpg"), (3, "jpeg")])
def test_jpeg_is_read(folder: Path, channels: int, suffix: str) -> None:
    stored = np.full((channels, 8, 8), 100, np.uint8)
    save(stored, folder / f"a.{suffix}")
    read = image_folder(folder).read([0])
    assert read.shape == (1, channels, 8, 8)
    assert abs(read[0].astype(int) - 100).max() <= 2


def test_names_are_in_natural_order(folder: Path) -> None:
    names = ["img1.png", "img2.png", "img02.png", "img10.png", "img10a1.png", "img100.png", "other.png", "7.png"]
    for value, name in enumerate(names):
        save(np.full((1, 4, 4), value, np.uint8), folder / name)
    order = image_folder(folder).read(range(8))[:, 0, 0, 0].tolist()
    assert [names[value] for value in order] == [
        "7.png", "img1.png", "img02.png", "img2.png", "img10.png", "img10a1.png", "img100.png", "other.png",
    ]  # fmt: skip


def test_any_indices_can_be_read_in_any_order(folder: Path) -> None:
    stored = images(12)
    for index, image in enumerate(stored):
        save(image, folder / f"{index}.png")
    found = image_folder(folder)
    np.testing.assert_array_equal(found.read([11, 0, 3, 3]), stored[[11, 0, 3, 3]])
    assert found.read([]).shape == (0, *stored.shape[1:])


def test_the_digest_is_of_contents_and_their_order(folder: Path) -> None:
    stored = images(3)
    for index in (2, 0, 1):
        save(stored[index], folder / f"{index}.png")
    before = image_folder(folder).digest
    assert len(before) == 64
    (folder / "0.png").rename(folder / "00.png")
    assert image_folder(folder).digest == before
    (folder / "00.png").rename(folder / "3.png")
    swapped = image_folder(folder).digest
    save(images(1, seed=1)[0], folder / "3.png")
    assert len({before, swapped, image_folder(folder).digest}) == 3


def test_whatever_else_lies_there_is_left_alone(folder: Path) -> None:
    save(images()[0], folder / "a.png")
    before = image_folder(folder).digest
    (folder / ".hidden.png").write_bytes(b"nothing")
    (folder / "._a.png").write_bytes(b"nothing")
    (folder / "captions.txt").write_text("a cat")
    (folder / "more").mkdir()
    (folder / "folder.png").mkdir()
    save(images(size=9)[0], folder / "more" / "b.png")
    found = image_folder(folder)
    assert (found.count, found.digest) == (1, before)


def test_pixels_are_read_when_they_are_asked_for(folder: Path) -> None:
    for index, image in enumerate(images(2)):
        save(image, folder / f"{index}.png")
    found = image_folder(folder)
    (folder / "1.png").unlink()
    assert found.read([0]).shape == (1, 1, 6, 8)
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image"):
        found.read([1])


def test_grey_among_colour_becomes_colour(folder: Path) -> None:
    """As torch-fidelity and clean-fid have it: data sets of photographs hold some grey ones."""
    grey, colour = images(1)[0], images(1, channels=3)[0]
    save(grey, folder / "a.png")
    save(colour, folder / "b.png")
    read = image_folder(folder).read([0, 1])
    np.testing.assert_array_equal(read[0], np.repeat(grey, 3, axis=0))
    np.testing.assert_array_equal(read[1], colour)


def test_palettes_are_colours_and_bits_are_grey(folder: Path) -> None:
    colour = (images(1, channels=3)[0] // 128 * 255).astype(np.uint8)
    picture = Image.fromarray(colour.transpose(1, 2, 0))
    picture.quantize(8).save(folder / "palette.png")
    np.testing.assert_array_equal(image_folder(folder).read([0])[0], colour)
    (folder / "palette.png").unlink()
    picture.convert("1").save(folder / "bits.png")
    read = image_folder(folder).read([0])
    assert read.shape[1] == 1
    assert set(np.unique(read)) <= {0, 255}


def test_no_such_folder(refused: Callable[..., str], folder: Path) -> None:
    assert f"{folder / 'none'} cannot be read as a folder of images (No such file" in refused(folder / "none")
    save(images()[0], folder / "a.png")
    assert refused(folder / "a.png") == f"{folder / 'a.png'} is a file: name the folder that holds the images"


def test_no_images(refused: Callable[..., str], folder: Path) -> None:
    text = refused()
    assert text.startswith(f"{folder} holds no images (")
    assert "png" in text
    assert text.endswith("name the folder that holds them")


def test_images_in_sub_folders_only(refused: Callable[..., str], folder: Path) -> None:
    for name in ("dogs", "cats"):
        (folder / name).mkdir()
        save(images()[0], folder / name / "a.png")
    assert refused().endswith("sub-folders such as 'cats' are not searched: name the one that holds the images")


def test_images_of_two_sizes(refused: Callable[..., str], folder: Path) -> None:
    save(images(size=6)[0], folder / "a.png")
    save(images(size=6)[1], folder / "b.png")
    save(images(size=9)[0], folder / "c.png")
    assert refused() == f"{folder}: a.png is 8x6 pixels and c.png is 11x9: resize the images to one size first"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_channels(refused: Callable[..., str], folder: Path, mode: str, suffix: str) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 128)).convert(mode).save(folder / f"a.{suffix}")
    text = refused()
    assert text.startswith(f"{folder / f'a.{suffix}'} has an alpha channel: flatten it first")
    assert "mogrify -background white -alpha remove -alpha off" in text


@pytest.mark.parametrize(("mode", "transparency"), [("L", 7), ("RGB", (1, 2, 3)), ("P", 0)])
def test_a_transparent_colour(refused: Callable[..., str], folder: Path, mode: str, transparency: object) -> None:
    Image.new(mode, (4, 4)).save(folder / "a.png", transparency=transparency)
    assert "a.png has an alpha channel" in refused()


def deep_png(path: Path) -> None:
    """Write 16 bits of each colour, which Pillow cannot."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + bytes(range(24))) * 4)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


@pytest.mark.parametrize("kind", ["grey png", "colour png", "grey tif", "integers", "floats"])
def test_more_than_8_bits(refused: Callable[..., str], folder: Path, kind: str) -> None:
    path = folder / ("a.png" if kind.endswith("png") else "a.tif")
    if kind == "colour png":
        deep_png(path)
    else:
        dtype = {"integers": np.int32, "floats": np.float32}.get(kind, np.uint16)
        Image.fromarray(np.full((4, 4), 300, dtype)).save(path)
    text = refused()
    assert text.startswith(f"{path} has more than 8 bits a channel: convert it first")
    assert "mogrify -depth 8" in text


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("CMYK", "tif"), ("LAB", "tif")])
def test_other_colours(refused: Callable[..., str], folder: Path, mode: str, suffix: str) -> None:
    Image.new(mode, (4, 4)).save(folder / f"a.{suffix}")
    text = refused()
    assert text.startswith(f"{folder / f'a.{suffix}'} is in {mode} colours: convert it first")
    assert "mogrify -colorspace sRGB" in text


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_several_images_in_a_file(refused: Callable[..., str], folder: Path, suffix: str) -> None:
    first, *others = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (0, 100, 200)]
    first.save(folder / f"a.{suffix}", save_all=True, append_images=others)
    assert refused() == f"{folder / f'a.{suffix}'} holds 3 images: write each into a file of its own"


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image(refused: Callable[..., str], folder: Path, content: bytes) -> None:
    (folder / "a.png").write_bytes(content)
    text = refused()
    assert text.startswith(f"{folder / 'a.png'} cannot be read as an image (")
    assert text.endswith("remove it or write it again")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_short(refused: Callable[..., str], folder: Path, suffix: str, share: float) -> None:
    path = folder / f"a.{suffix}"
    save(images(1, channels=3, size=64)[0], path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert refused(read=True).startswith(f"{path} cannot be read as an image (")


@pytest.mark.parametrize("size", [6, 9])
def test_a_file_that_became_another(folder: Path, size: int) -> None:
    save(images()[0], folder / "a.png")
    found = image_folder(folder)
    save(images(size=size, seed=1)[0], folder / "a.png")
    with pytest.raises(DataError) as caught:
        found.read([0])
    assert str(caught.value) == f"{folder / 'a.png'} changed since it was first read: start again"


@pytest.mark.parametrize("among", ["images", "nothing"])
def test_a_link_to_nothing(refused: Callable[..., str], folder: Path, among: str) -> None:
    if among == "images":
        save(images()[0], folder / "a.png")
    (folder / "b.png").symlink_to(folder / "gone")
    assert refused() == f"{folder / 'b.png'} is a link to a file that is not there: remove it or write the image again"


def test_a_pipe_is_not_waited_for(refused: Callable[..., str], folder: Path) -> None:
    os.mkfifo(folder / "a.png")
    assert refused() == f"{folder / 'a.png'} is not a file: remove it or write the image again"


def test_a_link_to_an_image_is_one(folder: Path, tmp_path: Path) -> None:
    save(images()[0], tmp_path / "elsewhere.png")
    (folder / "a.png").symlink_to(tmp_path / "elsewhere.png")
    np.testing.assert_array_equal(image_folder(folder).read([0])[0], images()[0])


def test_stems_are_in_the_order_of_the_images(folder: Path) -> None:
    for name in ("img10.png", "img2.bmp", "img1.PNG"):
        save(images()[0], folder / name)
    (folder / "captions.txt").touch()
    assert image_stems(folder) == ["img1", "img2", "img10"]


def test_files_of_all_sizes(folder: Path) -> None:
    for index, size in enumerate((6, 9, 12)):
        save(images(size=size)[0], folder / f"{index}.png")
    files = image_files(folder)
    assert [each.header.height for each in files] == [6, 9, 12]
    assert [each.path.name for each in image_files(folder, limit=2)] == ["0.png", "1.png"]
    assert [each.path.name for each in image_files(folder, ["2.png", "0.png"])] == ["2.png", "0.png"]
    assert len({files_digest(files), files_digest(files[:2]), files_digest(files[::-1])}) == 3


def test_files_that_are_not_asked_for_are_not_read(folder: Path) -> None:
    save(images()[0], folder / "a.png")
    (folder / "b.png").write_bytes(b"damaged")
    assert len(image_files(folder, limit=1)) == len(image_files(folder, ["a.png"])) == 1
    assert len(image_files(folder, ["a.png", "gone.png"], limit=1)) == 1
    with pytest.raises(DataError, match=r"lacks 1 of the 2 images that are due, gone\.png for one: put them there"):
        image_files(folder, ["a.png", "gone.png"])
