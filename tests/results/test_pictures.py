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
    (tmp_path / "sheet.png").write_bytes(sheet({label: read_strip(path)}))
    shown = pixels(tmp_path / "sheet.png")
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
