"""Sheets of same-noise images: one row for each cell, one column for each sample, drawn from the cells' strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.errors import ResultsError
from qbench.records import Record, write_bytes
from qbench.results.strips import END_OF_PNG, StripInfo, read_strip, strip_path

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray
    from PIL.Image import Image

    Strip = tuple[StripInfo, Image]

LABEL_WIDTH = 130
"""At least; long labels get more."""
TARGET_SIDE = 48
GAP = 4


def write_sheets(records: Sequence[Record], folder: Path) -> list[str]:
    """Write ``media/<workload>.s<seed>.png`` for each workload and seed that has strips.

    Args:
        records: of one suite, in its order.
        folder: the suite's.

    Returns:
        What is wrong with strips that cannot be used; their cells have no row.

    Raises:
        ResultsError: the folder cannot be written.
    """
    groups: dict[tuple[str, int], dict[str, Strip]] = {}
    problems = []
    for record in records:
        try:
            found = strip_of(record, folder)
        except ResultsError as error:
            problems.append(str(error))
            continue
        if found is not None:
            rows = groups.setdefault((record.workload, record.seed), {})
            rows[record.label if record.is_full_precision else f"{record.label} {record.bits}"] = found
    for (workload, seed), rows in groups.items():
        path = folder / "media" / f"{workload}.s{seed}.png"
        made = sheet(rows)
        if not _shows(path, made):
            content = BytesIO()
            made.save(content, format="PNG", compress_level=6)  # optimizing takes three times as long for one percent
            write_bytes(path, content.getvalue())
    return problems


def strip_of(record: Record, folder: Path) -> Strip | None:
    """Return the strip of a cell; None if there is none, or only one of an earlier cell of this name.

    Raises:
        ResultsError: it cannot be read.
    """
    path = strip_path(folder, record)
    if not path.is_file():
        return None
    info, image = read_strip(path)
    return (info, image) if info.digest == record.digest else None


def sheet(rows: Mapping[str, Strip]) -> Image:
    """Return rows of images with their labels, grey if all images are.

    Args:
        rows: strips by label, of one workload and seed.
    """
    from PIL import Image, ImageDraw, ImageFont

    width = max(info.width for info, _ in rows.values())
    height = max(info.height for info, _ in rows.values())
    zoom = max(1, TARGET_SIDE // max(height, width))
    step_x, step_y = width * zoom + GAP, height * zoom + GAP
    columns = max(info.count for info, _ in rows.values())
    font = ImageFont.load_default()
    left = max(LABEL_WIDTH, *(2 * GAP + ceil(font.getlength(label)) for label in rows))
    mode = "L" if all(strip.mode == "L" for _, strip in rows.values()) else "RGB"
    made = Image.new(mode, (left + columns * step_x, len(rows) * step_y + GAP), "white")
    draw = ImageDraw.Draw(made)
    for row, (label, (info, strip)) in enumerate(rows.items()):
        top = GAP + row * step_y
        draw.text((GAP, top + height * zoom // 2 - 6), label, fill="black", font=font)
        made.paste(Image.fromarray(_apart(strip.convert(mode), info, zoom, step_x)), (left, top))
    return made


def _apart(strip: Image, info: StripInfo, zoom: int, step: int) -> NDArray[uint8]:
    """Return the pixels of a strip's images, each one larger, on white, at places that are a step apart."""
    import numpy as np

    pixels = np.asarray(strip)
    images = pixels.reshape(info.height, info.count, info.width, *pixels.shape[2:])
    images = images.repeat(zoom, axis=0).repeat(zoom, axis=2)
    apart = np.full((len(images), info.count, step, *pixels.shape[2:]), 255, dtype=np.uint8)
    apart[:, :, : images.shape[2]] = images
    return apart.reshape(len(images), info.count * step, *pixels.shape[2:])


def _shows(path: Path, made: Image) -> bool:
    """Whether a file is this very picture: encoding it again takes most of the time."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file() or not path.read_bytes().endswith(END_OF_PNG):
        return False
    try:
        with Image.open(path, formats=["PNG"]) as found:
            return (found.mode, found.size) == (made.mode, made.size) and found.tobytes() == made.tobytes()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        return False
