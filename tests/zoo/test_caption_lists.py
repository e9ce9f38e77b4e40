from pathlib import Path

import pytest

from qbench.zoo.caption_lists import calibration_captions, evaluation_captions
from qbench.zoo.garments import Garment, caption


@pytest.mark.usefixtures("captions")
def test_captions_survive_in_their_order(said: list[Garment]) -> None:
    assert evaluation_captions() == [caption(each) for each in said]
    assert calibration_captions() == [caption(each) for each in said[:8]]


def test_a_caption_is_a_line(captions: Path) -> None:
    assert sorted(path.name for path in captions.iterdir()) == ["calibration.txt", "evaluation.txt"]
    assert (captions / "calibration.txt").read_text(encoding="utf-8").count("\n") == 8
