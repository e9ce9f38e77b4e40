"""The first images of a cell side by side in one small picture: what pages and sheets show of it.

A strip is a PNG that says of itself, in a text chunk, how it is cut and which cell it is of, so that whatever is drawn
from it needs nothing but the results folder.
"""

from __future__ import annotations

import math
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qbench.cell import cell_id
from qbench.errors import DamagedArtefact, DataError, ResultsError
from qbench.plan import CellPlan
from qbench.records import Record, write_bytes
from qbench.stages.sample import FILE as IMAGES_FILE
from qbench.stages.sample import Sample
from qbench.store import Store

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray
    from PIL.Image import Image

COUNT = 12
COUNT_OF_LARGE = 8
LARGE_SIDE = 96
"""Images with a longer side are shrunk to it, and there are fewer of them: a page holds the strips of all cells."""
CHUNK = "qbench"
MAX_PIXELS = 4_000_000
END_OF_PNG = b"IEND\xaeB`\x82"


class StripInfo(BaseModel):
    """What a strip says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Annotated[str, Field(description="of the cell")]
    count: Annotated[int, Field(ge=1, le=COUNT, description="images, the first ones of the cell")]
    height: Annotated[int, Field(ge=1, description="of each image here")]
    width: Annotated[int, Field(ge=1, description="of each image here")]
    shape: Annotated[tuple[int, int, int], Field(description="channels, height and width of the cell's own images")]
    captions: Annotated[list[str], Field(description="of each image; empty without captions")] = []


def strip_path(folder: Path, record: Record) -> Path:
    """Return where the strip of a cell lies in its suite's folder."""
    return folder / "media" / "strips" / f"{cell_id(record.key)}.png"


def write_strip(planned: CellPlan, record: Record, store: Store, folder: Path) -> None:
    """Write the strip of a cell whose images are in the store; otherwise leave what there is.

    Args:
        planned: the cell's stages.
        record: the cell's record.
        store: where its images are.
        folder: the suite's.

    Raises:
        ResultsError: the folder cannot be written.
    """
    shard = planned.shards[0] if planned.shards else None
    if shard is None or not store.has(shard.kind, shard.digest):
        return
    path = strip_path(folder, record)
    images = _glimpse(shard, store)
    if images is not None and _shows(path, *_put_together(images, record.digest, _captions(planned, len(images)))):
        return
    images = _first_images(shard, store)
    if images is not None:
        write_bytes(path, strip(images, record.digest, _captions(planned, len(images))))


def strip(images: NDArray[uint8], digest: str, captions: list[str]) -> bytes:
    """Return the strip of some images.

    Args:
        images: [count, channels, height, width], with one or three channels.
        digest: of the cell.
        captions: of each image, or none.
    """
    return _encoded(*_put_together(images, digest, captions))


def _put_together(images: NDArray[uint8], digest: str, captions: list[str]) -> tuple[StripInfo, Image]:
    import numpy as np
    from PIL import Image

    channels, rows, columns = images.shape[1:]
    small = images if max(rows, columns) <= LARGE_SIDE else np.stack([_shrunk(each) for each in images])
    sheet = Image.fromarray(_pixels(np.concatenate(list(small), axis=-1)))
    info = StripInfo(
        digest=digest,
        count=len(small),
        height=small.shape[2],
        width=small.shape[3],
        shape=(channels, rows, columns),
        captions=captions,
    )
    return info, sheet


def _shows(path: Path, info: StripInfo, sheet: Image) -> bool:
    """Whether a file is this very strip: encoding is most of the work of a run that finds everything done."""
    try:
        if not path.read_bytes().endswith(END_OF_PNG):
            return False
        known, found = read_strip(path)
    except (OSError, ResultsError):
        return False
    return known == info and found.mode == sheet.mode and found.tobytes() == sheet.tobytes()


def _encoded(info: StripInfo, sheet: Image) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    chunk = PngInfo()
    chunk.add_itxt(CHUNK, info.model_dump_json())
    content = BytesIO()
    sheet.save(content, format="PNG", optimize=True, pnginfo=chunk)
    return content.getvalue()


def read_strip(path: Path) -> tuple[StripInfo, Image]:
    """Read a strip.

    Raises:
        ResultsError: it is no strip, or not the picture that it says it is.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ResultsError(f"{path}: {image.width} x {image.height} pixels are more than a strip has")
            image.load()
            info = StripInfo.model_validate_json(image.text.get(CHUNK, ""))  # type: ignore[attr-defined]
            found = image.copy()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, ValidationError) as error:
        raise ResultsError(f"{path}: cannot be read as a strip of images ({type(error).__name__})") from None
    if found.size != (info.width * info.count, info.height) or len(info.captions) not in (0, info.count):
        raise ResultsError(f"{path}: the strip is not cut as it says")
    return info, found


def _glimpse(shard: Sample, store: Store) -> NDArray[uint8] | None:
    """Return the first images without comparing the shard with its digest, which takes longer than all the rest."""
    import numpy as np

    shape = shard.workload.image_shape
    count = min(shard.stop - shard.start, _count(shape))
    header = _header((shard.stop - shard.start, *shape))
    size = count * math.prod(shape)
    try:
        with open(store.folder(shard.kind, shard.digest) / IMAGES_FILE, "rb") as file:
            content = file.read(len(header) + size)
    except OSError:
        return None
    if len(content) < len(header) + size or not content.startswith(header):
        return None
    return np.frombuffer(content, np.uint8, size, len(header)).reshape(count, *shape)


@cache
def _header(shape: tuple[int, ...]) -> bytes:
    """Return how a file of uint8 images of a shape begins: numpy takes long to read it."""
    import numpy as np

    content = BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, description)
    return content.getvalue()


def _first_images(shard: Sample, store: Store) -> NDArray[uint8] | None:
    import numpy as np

    try:
        path = store.get(shard.kind, shard.digest).file(IMAGES_FILE)
    except DamagedArtefact:  # told and computed again by the next run
        return None
    return _first(np.load(path, mmap_mode="r", allow_pickle=False))


def _first(images: NDArray[uint8]) -> NDArray[uint8]:
    return images[: _count(images.shape[1:])]


def _count(shape: tuple[int, ...]) -> int:
    """Return how many images of a shape (channels, height, width) a strip has."""
    return COUNT_OF_LARGE if max(shape[1:]) > LARGE_SIDE else COUNT


def _captions(planned: CellPlan, count: int) -> list[str]:
    workload = planned.cell.workload
    if not workload.has_captions:
        return []
    try:
        return list(workload.captions(range(count)))
    except DataError:  # a file of captions that is gone: the images are there all the same
        return []


def _pixels(image: NDArray[uint8]) -> NDArray[uint8]:
    """Return an image [channels, height, width] as Pillow has it."""
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


def _shrunk(image: NDArray[uint8]) -> NDArray[uint8]:
    """Return a large image [channels, height, width] so that its longer side is ``LARGE_SIDE``."""
    import numpy as np
    from PIL import Image

    large = Image.fromarray(_pixels(image))
    width, height = (max(1, round(side * LARGE_SIDE / max(large.size))) for side in large.size)
    small = np.asarray(large.resize((width, height), Image.Resampling.BOX))
    return small[None] if small.ndim == 2 else small.transpose(2, 0, 1)
