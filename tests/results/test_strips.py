"""A strip says how it is cut, and gives back the pixels it was made of."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from qbench.errors import ResultsError
from qbench.results.strips import CHUNK, LARGE_SIDE, read_strip, strip


def images(count: int, channels: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, height, width), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_come_back_as_they_were(tmp_path: Path, channels: int) -> None:
    made = images(5, channels, 16, 20)
    captions = [f"caption <b>{number}</b> \u00e4" for number in range(5)]
    path = tmp_path / "strip.png"
    path.write_bytes(strip(made, "digest", captions))
    info, picture = read_strip(path)
    assert (info.digest, info.count, info.height, info.width) == ("digest", 5, 16, 20)
    assert (info.shape, info.captions) == ((channels, 16, 20), captions)
    found = np.asarray(picture).reshape(16, 5, 20, channels).transpose(1, 3, 0, 2)
    np.testing.assert_array_equal(found, made)


def test_large_images_are_shrunk_and_keep_their_proportions(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    path.write_bytes(strip(images(2, 3, 512, 256), "digest", []))
    info, _ = read_strip(path)
    assert (info.height, info.width, info.shape) == (LARGE_SIDE, LARGE_SIDE // 2, (3, 512, 256))


def test_the_same_images_give_the_same_bytes() -> None:
    assert strip(images(3, 1, 8, 8), "d", []) == strip(images(3, 1, 8, 8), "d", [])


def _png(width: int, height: int, text: str | None) -> bytes:
    content, chunk = BytesIO(), PngInfo()
    if text is not None:
        chunk.add_itxt(CHUNK, text)
    Image.new("L", (width, height)).save(content, format="PNG", pnginfo=chunk)
    return content.getvalue()


INFO = '{"digest": "d", "count": 2, "height": 8, "width": 8, "shape": [1, 8, 8]%s}'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot be read"),
        (b"GIF89a", "cannot be read"),
        (_png(16, 8, None), "cannot be read"),
        (_png(16, 8, "{}"), "cannot be read"),
        (_png(16, 8, INFO % "")[:60], "cannot be read"),
        (_png(24, 8, INFO % ""), "not cut as it says"),
        (_png(16, 8, INFO % ', "captions": ["one"]'), "not cut as it says"),
        (_png(4000, 2000, INFO % ""), "more than a strip has"),
    ],
    ids=["empty", "another-format", "no-chunk", "wrong-chunk", "truncated", "cut", "captions", "too-large"],
)
def test_what_is_no_strip_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "strip.png"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=problem):
        read_strip(path)


class TestARunThatFindsAllDone:
    """It looks at every strip, and makes only those again that do not show the images of the store."""

    @pytest.fixture
    def path(self, finished_suite: Path, workplace: Path) -> Path:
        return workplace / "results" / "micro" / "media" / "strips" / "micro.round.W4A8.s0.png"

    def test_a_strip_of_other_images_is_made_again(
        self, qbench: Callable[..., Any], finished_suite: Path, path: Path
    ) -> None:
        before, (info, _) = path.read_bytes(), read_strip(path)
        path.write_bytes(strip(np.zeros((info.count, *info.shape), np.uint8), info.digest, []))
        assert qbench("run", finished_suite).code == 0
        assert path.read_bytes() == before

    def test_half_a_strip_is_made_again(self, qbench: Callable[..., Any], finished_suite: Path, path: Path) -> None:
        before = path.read_bytes()
        path.write_bytes(before[:-5])
        assert qbench("run", finished_suite).code == 0
        assert path.read_bytes() == before

    def test_images_that_are_damaged_are_not_shown(
        self, qbench: Callable[..., Any], finished_suite: Path, path: Path, workplace: Path
    ) -> None:
        before = path.read_bytes()
        for shard in (workplace / "store" / "artefacts" / "sample").rglob("images.npy"):
            content = bytearray(shard.read_bytes())
            content[150] ^= 255
            shard.write_bytes(content)
        assert qbench("run", finished_suite).code == 0
        assert path.read_bytes() == before
