"""The shipped captions: of test images for evaluation, of training images for calibration."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from qbench.zoo.garments import Garment, caption
from qbench.zoo.paths import CAPTIONS

EVALUATION = 5_000
"""Captions for evaluation: of the first test images."""

CALIBRATION = 1_000
"""Captions for calibration: of the first training images."""


def write_captions(folder: Path, test: Sequence[Garment], train: Sequence[Garment]) -> None:
    """Write both lists, each caption saying everything that is known of its image."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, garments in (("evaluation", test[:EVALUATION]), ("calibration", train[:CALIBRATION])):
        text = "\n".join(caption(each) for each in garments) + "\n"
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


@cache
def evaluation_captions() -> Sequence[str]:
    """Return the captions that are sampled."""
    return _read("evaluation")


@cache
def calibration_captions() -> Sequence[str]:
    """Return the captions that methods are calibrated on."""
    return _read("calibration")


def _read(name: str) -> Sequence[str]:
    return (CAPTIONS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
