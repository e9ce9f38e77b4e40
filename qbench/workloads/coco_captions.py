"""COCO 2014 captions: the 5,000 that images are evaluated on, and 500 others to calibrate with.

The evaluation list is the one of MLPerf's text-to-image inference benchmark: one caption for each of 5,000 images of
val2014. Its calibration list is of train2014, published as ids only; the texts are in COCO's captions_train2014.json.
So that everybody can calibrate without that file, 500 captions of qbench's own, in the same style, are shipped too.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from qbench.errors import DataError
from qbench.workloads.caption_file import CaptionList, read_captions

FOLDER = Path(__file__).parent / "captions"
EVALUATION = FOLDER / "coco2014-val-5000.tsv"
CALIBRATION = FOLDER / "calibration-500.txt"
CALIBRATION_IDS = FOLDER / "coco2014-train-calibration-ids.txt"
ANNOTATIONS = "captions_train2014.json"


@cache
def coco2014_captions() -> CaptionList:
    """Return the 5,000 captions of MLPerf's list, with the file names of their images, in its order."""
    found = read_captions(EVALUATION)
    return CaptionList("COCO 2014 val (MLPerf's 5,000)", found.captions, found.files)


def coco2014_calibration_captions(annotations: Path | None = None) -> CaptionList:
    """Return captions to calibrate with; none of them is an evaluated one, letter case and punctuation aside.

    Args:
        annotations: COCO's captions_train2014.json, to take MLPerf's 500 from, without those whose words are also
            those of an evaluated caption; by default, qbench's own 500 are returned, which need no other file.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    if annotations is None:
        return CaptionList("calibration captions in COCO's style", read_captions(CALIBRATION).captions)
    ids = [int(line) for line in CALIBRATION_IDS.read_text(encoding="ascii").split()]
    texts = _annotated(annotations)
    missing = [each for each in ids if each not in texts]
    if missing:
        raise DataError(
            f"{annotations} lacks {len(missing):,} of the {len(ids):,} calibration captions, the id {missing[0]} for "
            f"one: name COCO's {ANNOTATIONS}"
        )
    # As MLPerf's own script takes them.
    captions = [texts[each].replace("\n", "").strip() for each in ids]
    evaluated = {words_of(caption) for caption in coco2014_captions().captions}
    return CaptionList(
        "COCO 2014 train (MLPerf's for calibration)",
        tuple(caption for caption in captions if words_of(caption) not in evaluated),
    )


def words_of(caption: str) -> tuple[str, ...]:
    """Return what is compared of captions: their words in lower case, without punctuation."""
    return tuple(re.findall(r"\w+", caption.casefold()))


def _annotated(path: Path) -> dict[int, str]:
    try:
        with path.open(encoding="utf-8") as file:
            content: Any = json.load(file)
        return {int(each["id"]): str(each["caption"]) for each in content["annotations"]}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): name COCO's {ANNOTATIONS}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path} is damaged or no file of COCO's captions ({reason}): fetch it again") from error
