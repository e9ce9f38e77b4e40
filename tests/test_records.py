import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import ResultsError
from qbench.identity import digest
from qbench.records import (
    CurveInfo,
    Figure,
    MetricInfo,
    ProfileInfo,
    Record,
    StageCost,
    SuiteInfo,
    read_record,
    write_record,
)
from qbench.records import write_text as write_whole

DESCRIPTION = {"workload": {"name": "micro"}, "method": None, "seed": 0}
METRIC = MetricInfo(title="T", direction="lower", against="nothing", protocol="P", paper="", description={"a": 1})


LATENCY: dict[str, Any] = {
    "batch": 16,
    "step_index": 3,
    "rounds": 5,
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
    "compiled": False,
    "packed_mb": 0.5,
    "resident_mb": 4.0,
    "full_precision": {"seconds": 0.5, "peak_mb": 2.5},
}
CURVE = {
    "samples": 12,
    "step_index": [0, 1],
    "timestep": [5, 0],
    "teacher_forced": [1e-300, 1 / 3],
    "free_running": [0.0, 0.5, 7.0],
}


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "suite": SuiteInfo(name="s", title="S", position=0),
        "workload": "micro",
        "method": "round",
        "label": "round-tight",
        "bits": "W4A8",
        "boundary_bits": 8,
        "seed": 3,
        "samples": 12,
        "status": "complete",
        "description": DESCRIPTION,
        "digest": digest(DESCRIPTION),
        "baseline": "b" * 64,
        "results": {"profile": "0" * 64, "m": "1" * 64},
        "metrics": {"m": METRIC},
        "figures": {"m": Figure(value=1 / 3, delta=-0.0, low=-1e-300, high=1e300, samples=12)},
        "profile": ProfileInfo(size_mb=0.1, coverage_macs=1.0, coverage_parameters=0.9, left_out=["conv_in"]),
        "curve": CurveInfo(**CURVE),
        "stages": [StageCost(stage="score", digest="0" * 64, seconds=0.1, peak_memory_mb=1.5)],
        "environment": {"device": "cpu"},
        "git": {"commit": "c0ffee", "suite_is_committed": True},
    }
    return Record(**(values | changes))


def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path):
    path = tmp_path / "records" / "one.json"
    write_record(record(), path)
    assert repr(read_record(path)) == repr(record())


@given(value=st.floats(allow_nan=False, allow_infinity=False), reason=st.text())
def test_any_figure_and_any_reason_survive(tmp_path_factory: pytest.TempPathFactory, value: float, reason: str):
    path = tmp_path_factory.mktemp("any") / "one.json"
    wanted = record(figures={"m": Figure(value=value, samples=1)}, reason=reason)
    write_record(wanted, path)
    assert read_record(path) == wanted


def test_nothing_else_is_left_in_the_folder(tmp_path: Path):
    write_record(record(), tmp_path / "one.json")
    write_record(record(seed=4), tmp_path / "one.json")
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_the_same_record_is_not_written_again(tmp_path: Path):
    path = tmp_path / "one.json"
    write_record(record(), path)
    before = path.stat()
    write_record(record(), path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_full_precision_is_its_own_baseline():
    assert not record().is_full_precision
    assert record(baseline=digest(DESCRIPTION)).is_full_precision


def test_the_key_is_what_tells_rows_apart():
    assert record().key == ("micro", "round-tight", "W4A8", 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_figure_is_not_a_number(value: float):
    with pytest.raises(ValueError, match="finite"):
        Figure(value=value, samples=1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"17",
        b'"text"',
        b"{}",
        b'{"schema_version": 1}',
        b"\xff\xfe\x00",
        b'{"schema_version": NaN}',
        b"[" * 100_000,
    ],
    ids=["empty", "cut short", "list", "null", "number", "text", "no keys", "no content", "binary", "nan", "deep"],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "stranger.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"stranger\.json") as refusal:
        read_record(path)
    assert "\n" not in str(refusal.value)


def test_a_record_from_before_there_were_curves_has_none(tmp_path: Path):
    path = tmp_path / "one.json"
    write_record(record(), path)
    raw = json.loads(path.read_text())
    del raw["curve"]
    path.write_text(json.dumps(raw))
    assert read_record(path) == record(curve=None)


def test_a_record_of_the_first_version_is_read(tmp_path: Path):
    path = tmp_path / "one.json"
    write_record(record(), path)
    raw = json.loads(path.read_text())
    raw["schema_version"] = 1
    del raw["stands_in_for"]
    for key in ("file", "standin", "overrides", "published"):
        del raw["suite"][key]
    for figure in raw["figures"].values():
        del figure["without"]
    path.write_text(json.dumps(raw))
    assert read_record(path) == record(schema_version=1)


def test_a_record_without_latency_is_written_as_before_there_was_any(tmp_path: Path):
    path = tmp_path / "one.json"
    write_record(record(), path)
    raw = json.loads(path.read_text())
    assert raw["schema_version"] == 2
    assert not {"latency", "latency_failure"} & raw.keys()
    assert read_record(path) == record()


@pytest.mark.parametrize("told", [{"latency": LATENCY}, {"latency_failure": "no luck"}])
def test_latency_is_of_version_3_and_comes_back(tmp_path: Path, told: dict[str, Any]):
    path = tmp_path / "one.json"
    write_record(record(schema_version=3, **told), path)
    assert read_record(path) == record(schema_version=3, **told)
    altered(path, schema_version=2)
    with pytest.raises(ResultsError, match="a record of version 2 has no latency"):
        read_record(path)


def test_a_missing_one_is_named(tmp_path: Path):
    with pytest.raises(ResultsError, match=r"nowhere\.json"):
        read_record(tmp_path / "nowhere.json")


def altered(path: Path, **changes: Any) -> Path:
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 999}, "version 999"),
        ({"description": {**DESCRIPTION, "seed": 1}}, "altered"),
        ({"digest": "0" * 64}, "altered"),
        ({"figures": {"m": {"value": "lots", "samples": 1}}}, r"figures\.m\.value"),
        ({"status": "splendid"}, "status"),
        ({"surprise": 1}, "surprise"),
        ({"seed": None}, "seed"),
        ({"curve": CURVE | {"free_running": [0.0, 0.5]}}, "curve.* one behind the last"),
        ({"curve": CURVE | {"timestep": [5]}}, "curve.* one value for each step"),
        ({"curve": CURVE | {"step_index": [1, 2]}}, "curve.* counted from 0"),
        ({"curve": CURVE | {"teacher_forced": [0.1, -0.1]}}, r"curve\.teacher_forced\.1"),
        ({"curve": CURVE | {"teacher_forced": [0.1, math.inf]}}, r"curve\.teacher_forced\.1"),
    ],
    ids=[
        "version",
        "description",
        "digest",
        "figure",
        "status",
        "unknown key",
        "seed",
        "no last error",
        "few timesteps",
        "steps from 1",
        "negative error",
        "endless error",
    ],
)
def test_an_altered_record_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], words: str):
    path = tmp_path / "one.json"
    write_record(record(), path)
    with pytest.raises(ResultsError, match=rf"one\.json: .*{words}"):
        read_record(altered(path, **changes))


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ResultsError, match=r"one\.json cannot be written .* --results"):
        write_record(record(), tmp_path / "file" / "one.json")
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_text_is_whole_or_the_one_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "table.md"
    write_whole(path, "before\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ResultsError, match="No space left"):
        write_whole(path, "after\n")
    assert path.read_text() == "before\n"
    assert [each.name for each in tmp_path.iterdir()] == ["table.md"]
