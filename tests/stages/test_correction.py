"""What a method has the sampler take back, from its calibration to the images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def run(qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path) -> Callable[..., Any]:
    """Return a function that runs the micro suite with some methods and returns the records of its cells by name."""

    def run_it(*methods: Any, code: int = 0, **changes: Any) -> dict[str, Any]:
        suite = micro_suite(methods=list(methods), **changes)
        answer = qbench("run", suite)
        assert answer.code == code, answer.err
        paths = (workplace / "results" / "micro" / "records").glob("*.json")
        return {path.name.removeprefix("micro."): json.loads(path.read_text()) for path in paths}

    return run_it


def digest(record: Any, stage: str) -> str:
    (found,) = [each["digest"] for each in record["stages"] if each["stage"] == stage]
    return str(found)


def images(workplace: Path, record: Any) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = np.load(workplace / "store/artefacts/sample" / digest(record, "sample") / "images.npy")
    return found


def figure(record: Any) -> float:
    return float(record["figures"]["mse-to-fp"]["value"])


def test_the_correction_brings_images_and_curve_nearer_to_full_precision(run: Callable[..., Any]) -> None:
    records = run("round", "corrected", bits=["W2A32", "W2A8"])
    for bits in ("W2A32", "W2A8"):
        plain, corrected = (records[f"{name}.{bits}.s0.json"] for name in ("round", "corrected"))
        assert figure(corrected) < 0.8 * figure(plain)
        curves = [np.mean(each["curve"]["teacher_forced"]) for each in (corrected, plain)]
        assert curves[0] < 0.8 * curves[1]


def test_a_correction_of_nothing_changes_no_byte(run: Callable[..., Any], workplace: Path) -> None:
    nothing = {"name": "corrected", "settings": {"part": 0.0}}
    records = run("round", nothing, bits=["W4A4"])
    plain, corrected = (records[f"{name}.W4A4.s0.json"] for name in ("round", "corrected"))
    assert np.array_equal(images(workplace, plain), images(workplace, corrected))


def test_its_digest_is_of_all_that_it_rests_on_and_of_nothing_else(run: Callable[..., Any]) -> None:
    whole, part = (
        {"name": "corrected", "settings": {"part": part}, "as": name} for name, part in (("a", 1), ("b", 0.5))
    )
    records = run(whole, part, bits=["W4A32", "W4A4"])
    found = {name: record for name, record in records.items() if not name.startswith("full")}
    assert len({digest(record, "correction") for record in found.values()}) == 4
    assert len({digest(record, "sample") for record in found.values()}) == 4
    for record in found.values():
        kinds = [each["stage"] for each in record["stages"]]
        assert kinds.count("correction") == 1
        assert kinds.index("correction") < kinds.index("sample")
    for bits in ("W4A32", "W4A4"):
        of_bits = [record for record in found.values() if record["bits"] == bits]
        assert len({digest(record, "weights") for record in of_bits}) == 1  # what it alone looks at costs nothing again
    again = run(whole, part, bits=["W4A32", "W4A4"])
    assert {name: digest(record, "correction") for name, record in again.items() if name in found} == {
        name: digest(record, "correction") for name, record in found.items()
    }


def test_a_correction_for_other_steps_fails_its_cells_only(run: Callable[..., Any]) -> None:
    short = {"name": "corrected", "settings": {"forgotten": 1}}
    records = run("round", short, bits=["W4A4"], code=1)
    assert records["round.W4A4.s0.json"]["status"] == "complete"
    failed = records["corrected.W4A4.s0.json"]
    assert failed["status"] == "failed"
    assert "the step correction is for 3 steps and 1 channels" in failed["reason"]
