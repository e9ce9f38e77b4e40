"""Same-noise pictures: one row for each cell, one column for each sample."""

from __future__ import annotations

from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.errors import DamagedArtefact
from qbench.plan import CellPlan, Plan
from qbench.records import write_bytes
from qbench.stages.sample import FILE as IMAGES_FILE
from qbench.stages.sample import Sample
from qbench.store import Store

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

COLUMNS = 12
LABEL_WIDTH = 130
"""At least; long labels get more."""
TARGET_SIDE = 48
GAP = 4


def write_pictures(plan: Plan, store: Store, folder: Path) -> None:
    """Write ``media/<workload>.s<seed>.png`` for each workload and seed.

    Cells that failed have no row. A picture that could lose a row, because images are no longer in the store, is left
    as it is.

    Raises:
        ResultsError: the folder cannot be written.
    """
    groups: dict[tuple[str, int], list[CellPlan]] = {}
    for planned in plan.cells:
        groups.setdefault((planned.cell.workload_label, planned.cell.seed), []).append(planned)
    for (workload, seed), cells in groups.items():
        images = {_label(planned): _first_images(planned, store) for planned in cells}
        rows = {label: found for label, found in images.items() if found is not None}
        gone = any(images[_label(planned)] is None and _is_complete(planned, store) for planned in cells)
        if rows and not gone:
            _write(rows, folder / "media" / f"{workload}.s{seed}.png")


def _is_complete(planned: CellPlan, store: Store) -> bool:
    return all(store.has(target.kind, target.digest) for target in planned.targets)


def _label(planned: CellPlan) -> str:
    cell = planned.cell
    return cell.label if cell.method is None else f"{cell.label} {cell.bits}"


def _first_images(planned: CellPlan, store: Store) -> NDArray[uint8] | None:
    import numpy as np

    shard = next((stage for stage in planned.own_stages.values() if isinstance(stage, Sample)), None)
    if shard is None or not store.has(shard.kind, shard.digest):
        return None
    try:
        path = store.get(shard.kind, shard.digest).file(IMAGES_FILE)
    except DamagedArtefact:
        return None
    images: NDArray[uint8] = np.load(path, mmap_mode="r", allow_pickle=False)[:COLUMNS]
    return images


def _write(rows: dict[str, NDArray[uint8]], path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    height, width = next(iter(rows.values())).shape[-2:]
    zoom = max(1, TARGET_SIDE // max(height, width))
    step_x, step_y = width * zoom + GAP, height * zoom + GAP
    columns = max(len(images) for images in rows.values())
    font = ImageFont.load_default()
    left = max(LABEL_WIDTH, *(2 * GAP + ceil(font.getlength(label)) for label in rows))
    sheet = Image.new("RGB", (left + columns * step_x, len(rows) * step_y + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, images) in enumerate(rows.items()):
        top = GAP + row * step_y
        draw.text((GAP, top + height * zoom // 2 - 6), label, fill="black", font=font)
        for column, image in enumerate(images):
            tile = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).convert("RGB")
            tile = tile.resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + column * step_x, top))
    content = BytesIO()
    sheet.save(content, format="PNG", optimize=True)
    write_bytes(path, content.getvalue())
