import json
import re
from pathlib import Path

import pytest

from qbench.errors import DataError
from qbench.workloads.coco_captions import (
    CALIBRATION_IDS,
    EVALUATION,
    FOLDER,
    coco2014_calibration_captions,
    coco2014_captions,
    words_of,
)


def calibration_ids() -> list[int]:
    return [int(line) for line in CALIBRATION_IDS.read_text().split()]


def test_the_list_is_the_published_one() -> None:
    found = coco2014_captions()
    assert found.digest == "3ef9681cbe5fd6a089ea48a94bc24f305f4f3990d4bd5de4dc71e4f0bc6d9ad4"
    assert len(found) == 5_000
    assert found.at([0, 4_999]) == ["A city at night with people walking around.", found.captions[-1]]
    assert found.files is not None
    assert len(set(found.files)) == 5_000
    assert all(re.fullmatch(r"COCO_val2014_\d{12}\.jpg", each) for each in found.files)


def test_more_samples_than_captions() -> None:
    with pytest.raises(DataError, match=r"MLPerf's 5,000\) are 5,000 captions, and 50,000 samples are asked for"):
        coco2014_captions().at(range(50_000))


def test_no_calibration_caption_is_evaluated() -> None:
    evaluated = {words_of(caption) for caption in coco2014_captions().captions}
    calibration = coco2014_calibration_captions()
    assert len({words_of(caption) for caption in calibration.captions}) == 500
    assert not evaluated & {words_of(caption) for caption in calibration.captions}


def test_no_calibration_id_is_evaluated() -> None:
    evaluated = {int(line.split("\t")[0]) for line in EVALUATION.read_text().splitlines()[1:]}
    assert len(evaluated) == 5_000
    assert len(set(calibration_ids())) == 500
    assert not evaluated & set(calibration_ids())


def annotations(path: Path, texts: dict[int, str]) -> Path:
    path.write_text(json.dumps({"annotations": [{"id": each, "caption": text} for each, text in texts.items()]}))
    return path


def test_the_published_calibration_list_is_looked_up(tmp_path: Path) -> None:
    texts = {each: f" Caption\n number {each}. " for each in reversed(calibration_ids())} | {1: "not on the list"}
    texts[calibration_ids()[7]] = "a city at night, with people walking around"
    found = coco2014_calibration_captions(annotations(tmp_path / "captions_train2014.json", texts))
    kept = [each for index, each in enumerate(calibration_ids()) if index != 7]
    assert found.captions == tuple(f"Caption number {each}." for each in kept)


def test_annotations_of_something_else(tmp_path: Path) -> None:
    path = annotations(tmp_path / "captions_val2014.json", {1: "a cat"})
    with pytest.raises(DataError, match=r"val2014\.json lacks 500 of the 500 calibration captions, the id 282 for one"):
        coco2014_calibration_captions(path)
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file"):
        coco2014_calibration_captions(tmp_path / "none.json")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"annotations": [1]}', '{"annotations": [{"id": "x"}]}'])
def test_damaged_annotations(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json is damaged or no file of COCO's captions") as caught:
        coco2014_calibration_captions(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_licences_lie_beside_the_captions() -> None:
    assert "Apache License" in (FOLDER / "LICENSE-mlcommons-inference.md").read_text()
    said = (FOLDER / "README.md").read_text()
    assert "CC BY 4.0" in said
    assert all(each.name in said for each in FOLDER.iterdir() if each.name != "README.md")
