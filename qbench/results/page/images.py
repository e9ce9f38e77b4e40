"""The first images of each cell, as a page embeds them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from qbench.errors import ResultsError
from qbench.records import Record
from qbench.results.page.pool import Pool
from qbench.results.pictures import strip_of
from qbench.results.reading import without_folder


def embedded_strips(
    records: Sequence[Record], folder: Path, pool: Pool
) -> tuple[list[dict[str, Any] | None], list[str]]:
    """Return the strip of each record, None where there is none, and what is wrong with those that cannot be read.

    The pixels are written anew: whatever else a file of a strip holds does not reach the page.

    Args:
        records: of one suite.
        folder: the suite's.
        pool: where captions go, which the cells of a workload share.
    """
    strips: list[dict[str, Any] | None] = []
    problems = []
    for record in records:
        try:
            found = strip_of(record, folder)
        except ResultsError as error:
            problems.append(without_folder(str(error), folder))
            found = None
        if found is None:
            strips.append(None)
            continue
        info, image = found
        content = BytesIO()
        (image if image.mode in ("L", "RGB") else image.convert("RGB")).save(content, format="PNG", compress_level=6)
        strips.append(
            {
                "png": b64encode(content.getvalue()).decode("ascii"),
                "count": info.count,
                "width": info.width,
                "height": info.height,
                "shape": pool.place(list(info.shape)),
                "captions": pool.place(info.captions),
            }
        )
    return strips, problems
