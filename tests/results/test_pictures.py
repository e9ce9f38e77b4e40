"""The sheet of same-noise images, drawn from strips."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from qbench.records import Record
from qbench.results.pictures import GAP, LABEL_WIDTH, sheet, write_sheets
from qbench.results.strips import COUNT, read_strip, strip, strip_path

MakeRecord = Callable[..., Record]


def put_strip(folder: Path, record: Record, grey: int, digest: str | None = None) -> None:
    images = np.full((COUNT, 1, 16, 16), grey, np.uint8)
    path = strip_path(folder, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(strip(images, digest or record.digest, []))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("length", [5, 30, 120])
def test_labels_are_not_hidden_under_images(tmp_path: Path, length: int) -> None:
    """White images on white: what is dark is the label, and all of it is there."""
    label = "m" * length
    path = tmp_path / "strip.png"
    path.write_bytes(strip(np.full((COUNT, 1, 16, 16), 255, np.uint8), "0", []))
    shown = np.asarray(sheet({label: read_strip(path)}))
    wide = ImageFont.load_default().getlength(label)
    dark = np.flatnonzero((shown < 128).any(axis=0))
    assert dark[-1] >= GAP + wide - 3
    assert dark[-1] < shown.shape[1] - COUNT * (48 + GAP)
    assert shown.shape[1] >= LABEL_WIDTH + COUNT * (48 + GAP)


def test_rows_are_the_cells_in_their_order(tmp_path: Path, make_record: MakeRecord) -> None:
    records = [make_record("full-precision", "W32A32", 0), make_record("b"), make_record("a", position=2)]
    for record, grey in zip(records, (10, 100, 200), strict=True):
        put_strip(tmp_path, record, grey)
    assert write_sheets(records, tmp_path) == []
    column = pixels(tmp_path / "media" / "micro.s0.png")[:, -GAP - 24]
    assert [int(column[GAP + row * (48 + GAP) + 24]) for row in range(3)] == [10, 100, 200]


def test_a_damaged_strip_is_named_and_the_others_are_shown(tmp_path: Path, make_record: MakeRecord) -> None:
    good, bad = make_record("good"), make_record("bad")
    put_strip(tmp_path, good, 100)
    strip_path(tmp_path, bad).write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    problems = write_sheets([good, bad], tmp_path)
    assert len(problems) == 1
    assert "micro.bad.W4A8.s0.png: cannot be read as a strip" in problems[0]
    assert pixels(tmp_path / "media" / "micro.s0.png").shape[0] == 48 + 2 * GAP


def test_a_strip_of_an_earlier_cell_is_not_shown(tmp_path: Path, make_record: MakeRecord) -> None:
    record = make_record()
    put_strip(tmp_path, record, 100, digest="of another cell")
    assert write_sheets([record], tmp_path) == []
    assert not (tmp_path / "media" / "micro.s0.png").exists()


@pytest.mark.parametrize("spoil", [lambda content: content + b"x", lambda content: content[:-40], lambda _: b""])
def test_a_sheet_that_was_spoilt_is_drawn_again_and_a_good_one_is_left_alone(
    tmp_path: Path, make_record: MakeRecord, spoil: Callable[[bytes], bytes]
) -> None:
    record, path = make_record(), tmp_path / "media" / "micro.s0.png"
    put_strip(tmp_path, record, 100)
    write_sheets([record], tmp_path)
    content, time = path.read_bytes(), path.stat().st_mtime_ns
    write_sheets([record], tmp_path)
    assert path.stat().st_mtime_ns == time
    path.write_bytes(spoil(content))
    write_sheets([record], tmp_path)
    assert path.read_bytes() == content
    put_strip(tmp_path, record, 200)
    write_sheets([record], tmp_path)
    assert int(pixels(path)[GAP + 24, -GAP - 24]) == 200


def test_colour_is_kept_where_any_cell_has_it(tmp_path: Path) -> None:
    for name, channels in (("grey", 1), ("colour", 3)):
        images = np.zeros((2, channels, 8, 8), np.uint8)
        images[:, 0] = 200
        (tmp_path / name).write_bytes(strip(images, "0", []))
    rows = {name: read_strip(tmp_path / name) for name in ("grey", "colour")}
    shown = np.asarray(sheet(rows))
    assert shown.shape[2] == 3
    assert shown[-GAP - 3, -GAP - 3].tolist() == [200, 0, 0]
