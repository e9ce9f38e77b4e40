"""Whatever lies among the records of a suite is either a row or named in a report."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import ResultsError
from qbench.records import Record, write_record
from qbench.results.leaderboard import regenerate
from qbench.results.reading import read_records, read_suite_results, without_folder

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]
FULL = {"label": "full-precision", "bits": "W32A32", "position": 0}
NAME = "micro.round.W4A8.s0.json"


@pytest.fixture
def folder(make_record: MakeRecord, write_records: WriteRecords) -> Path:
    """A suite of full precision and one more cell."""
    return write_records(make_record(**FULL), make_record())


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None], name: str = NAME, to: str = NAME) -> None:
    """Write a record anew, changed as a hand with an editor would."""
    raw = json.loads((folder / "records" / name).read_text())
    change(raw)
    (folder / "records" / to).write_text(json.dumps(raw))


def labels(folder: Path) -> list[str]:
    return [record.label for record in read_suite_results(folder).records]


def the_problem(folder: Path) -> str:
    """Return the only problem: one line that begins with a place in the folder of results."""
    (problem,) = read_suite_results(folder).unreadable
    assert problem.startswith("micro/records/")
    assert str(folder.parent) not in problem
    assert problem.isprintable()
    return problem


class TestWhatIsNoRecord:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "cannot be read as a record"),
            ("{", "cannot be read as a record"),
            ("[1]", "not a record"),
            ("{}", "record of version None, this qbench reads 1, 2, 3"),
            ('{"schema_version": 99}', "record of version 99, this qbench reads 1, 2, 3"),
            ('{"schema_version": 2}', r"not a record \(suite: "),
            ("[" * 100_000, "cannot be read as a record"),
            ("\udcff\udcfe", "cannot be read as a record"),
        ],
        ids=["empty", "cut off", "a list", "no version", "of the future", "nothing in it", "deep", "binary"],
    )
    def test_it_is_named_and_the_others_are_there(self, folder: Path, content: str, reason: str):
        (folder / "records" / "a.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        problem = the_problem(folder)
        assert problem.startswith("micro/records/a.json: ")
        assert re.search(reason, problem)
        assert labels(folder) == ["full-precision", "round"]

    @pytest.mark.parametrize(
        "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")], ids=["folder", "pipe", "link"]
    )
    def test_what_is_no_file_is_named(self, folder: Path, make: Callable[[Path], object]):
        make(folder / "records" / "a.json")
        assert the_problem(folder) == "micro/records/a.json: cannot be read as a record (it is no file)"
        assert labels(folder) == ["full-precision", "round"]

    def test_a_file_name_of_several_lines_stays_one(self, folder: Path):
        (folder / "records" / "a\n# b\x1b[31m.json").write_text("{}")
        assert the_problem(folder).startswith("micro/records/a # b\\x1b[31m.json: ")

    def test_the_place_is_the_same_wherever_it_is_read_from(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        (folder / "records" / "a.json").write_text("{}")
        told = read_suite_results(folder).unreadable
        for start, path in ((folder.parent, "micro"), (folder.parent.parent, "results/micro"), (folder, ".")):
            monkeypatch.chdir(start)
            assert read_suite_results(Path(path)).unreadable == told
        monkeypatch.chdir(folder / "records")
        assert read_suite_results(Path("..")).unreadable == told

    def test_what_is_hidden_or_of_another_kind_is_nobodys_record(self, folder: Path):
        for name in (".micro.json.1234", ".hidden.json", "notes.txt"):
            (folder / "records" / name).write_text("{")
        assert read_suite_results(folder).unreadable == ()

    def test_a_folder_that_is_not_there_is_empty(self, tmp_path: Path):
        assert read_suite_results(tmp_path / "nowhere").records == ()


class TestNumbersThatAreNone:
    @pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
    @pytest.mark.parametrize(
        "place",
        [
            ("figures", "distance", "value"),
            ("figures", "distance", "low"),
            ("figures", "distance", "without"),
            ("profile", "size_mb"),
            ("description", "workload", "settings", "sampler", "eta"),
            ("metrics", "distance", "description", "metric"),
            ("environment", "threads"),
            ("suite", "overrides", "samples"),
        ],
        ids=".".join,
    )
    def test_a_record_with_one_is_named(self, folder: Path, place: tuple[str, ...], word: str):
        def spoil(raw: dict[str, Any]) -> None:
            for key in place[:-1]:
                raw = raw[key]
            raw[place[-1]] = ["@"] if place[-1] == "without" else "@"

        rewritten(folder, spoil)
        path = folder / "records" / NAME
        path.write_text(path.read_text().replace('"@"', word))
        assert the_problem(folder).startswith(f"micro/records/{NAME}: ")
        assert labels(folder) == ["full-precision"]


class TestNumbersThatNothingIs:
    @pytest.mark.parametrize("number", [2e100, -1e308, 10**101])
    @pytest.mark.parametrize(
        ("place", "named"),
        [
            (("samples",), "samples"),
            (("figures", "distance", "value"), "figures.distance"),
            (("figures", "distance", "delta"), "figures.distance"),
            (("figures", "distance", "low"), "figures.distance"),
            (("figures", "distance", "high"), "figures.distance"),
            (("figures", "distance", "without", 3), "figures.distance.without"),
            (("curve", "teacher_forced", 1), "curve"),
            (("curve", "free_running", 2), "curve"),
            (("curve", "timestep", 0), "curve"),
            (("profile", "size_mb"), "profile"),
            (("profile", "coverage_macs"), "profile"),
            (("stages", 0, "seconds"), "stages"),
        ],
        ids=str,
    )
    def test_a_record_with_one_is_named(self, folder: Path, place: tuple[str | int, ...], named: str, number: float):
        if "curve" in place:
            number = abs(number)
        if place in (("samples",), ("curve", "timestep", 0)):
            number = int(number)

        def spoil(raw: Any) -> None:
            raw["figures"]["distance"]["without"] = [1.0] * 20
            errors = {"teacher_forced": [0.1, 0.2], "free_running": [0.0, 0.1, 0.2]}
            raw["curve"] = {"samples": 12, "step_index": [0, 1], "timestep": [10, 0], **errors}
            for key in place[:-1]:
                raw = raw[key]
            raw[place[-1]] = number

        rewritten(folder, spoil)
        problem = f"micro/records/{NAME}: not a record ({named}: a number beyond 1e+100)"
        assert regenerate(folder.parent).problems == (problem,)
        assert labels(folder) == ["full-precision"]

    @pytest.mark.parametrize("size", [0, -3.0])
    def test_a_size_that_is_none_is_named(self, folder: Path, size: float):
        rewritten(folder, lambda raw: raw["profile"].update(size_mb=size))
        assert the_problem(folder) == f"micro/records/{NAME}: not a record (profile.size_mb: {size:g} is no size)"
        assert labels(folder) == ["full-precision"]


class TestAlteredRecords:
    def test_one_that_does_not_vouch_for_its_digest_is_named(self, folder: Path):
        rewritten(folder, lambda raw: raw["description"]["workload"].update(name="other"))
        assert "so it was altered" in the_problem(folder)
        assert labels(folder) == ["full-precision"]

    @pytest.mark.parametrize("key", ["workload", "label", "bits"])
    @pytest.mark.parametrize("name", ["../../outside", "", ".hidden", "a\\b", "a\0b"])
    def test_a_name_that_leads_out_of_the_folder_is_refused(self, folder: Path, key: str, name: str):
        rewritten(folder, lambda raw: raw.update({key: name}))
        assert f"({key}: {name!r} cannot be a part of a file's name)" in the_problem(folder)
        assert labels(folder) == ["full-precision"]

    @pytest.mark.parametrize("key", ["workload", "label", "bits"])
    @pytest.mark.parametrize(
        "name", ["a\nb", "a\x1b[31m", "a\x7f", "a\x85b", "a\ud800b", "a\ufffe", "\ufdd0", "\U0001ffff"]
    )
    def test_a_name_of_what_is_no_character_is_refused(self, folder: Path, key: str, name: str):
        rewritten(folder, lambda raw: raw.update({key: name}))
        assert the_problem(folder) == f"micro/records/{NAME}: not a record ({key}: {name!r} holds what is no character)"
        assert regenerate(folder.parent).problems == (the_problem(folder),)
        assert labels(folder) == ["full-precision"]

    @pytest.mark.parametrize("key", ["workload", "label", "bits"])
    @pytest.mark.parametrize("name", ["a" * 260, "\u00e9" * 100, "\ud800" * 70])
    def test_a_name_that_no_file_can_have_is_refused(self, folder: Path, key: str, name: str):
        rewritten(folder, lambda raw: raw.update({key: name}))
        reason = r"not a record \(the name of its cell has \d+ bytes, 200 are the most\)"
        assert re.fullmatch(f"micro/records/{NAME}: {reason}", the_problem(folder))
        assert regenerate(folder.parent).problems == (the_problem(folder),)
        assert labels(folder) == ["full-precision"]

    def test_the_longest_name_is_no_problem_to_anything(self, folder: Path):
        rewritten(folder, lambda raw: raw.update(workload="w.\u00e9" + "w" * (200 - len("w.\u00e9?.round.W4A8.s0"))))
        assert regenerate(folder.parent).problems == ()
        assert labels(folder) == ["full-precision", "round"]

    def test_names_that_are_text_to_a_page_are_none_of_its_business(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        write_records(make_record(**FULL))
        folder = write_records(make_record("<script>alert(1)| x$"))
        assert len(read_suite_results(folder).records) == 2


class TestDuplicates:
    def test_the_file_with_the_name_of_its_cell_stands(self, folder: Path):
        rewritten(folder, lambda raw: raw["environment"].update(device="cuda"), to="a-copy.json")
        assert the_problem(folder) == (
            f"micro/records/a-copy.json: a duplicate of micro/records/{NAME}, which stands, with the same figures; "
            "remove one of them"
        )
        assert [record.environment["device"] for record in read_suite_results(folder).records] == ["cpu", "cpu"]

    def test_it_is_said_when_their_figures_differ(self, folder: Path):
        rewritten(folder, lambda raw: raw["figures"]["distance"].update(value=9.0), to="a-copy.json")
        assert "which stands, and their figures differ; remove one of them" in the_problem(folder)
        assert read_suite_results(folder).records[1].figures["distance"].value == 1.5

    def test_without_that_name_the_first_stands(self, folder: Path):
        (folder / "records" / NAME).rename(folder / "records" / "b.json")
        rewritten(folder, lambda raw: None, name="b.json", to="a.json")
        assert the_problem(folder).startswith("micro/records/b.json: a duplicate of micro/records/a.json, which stands")
        assert labels(folder) == ["full-precision", "round"]

    def test_three_are_two_problems(self, folder: Path):
        for to in ("a.json", "b.json"):
            rewritten(folder, lambda raw: None, to=to)
        assert list(read_records(folder).problems) == ["a.json", "b.json"]


class TestAnotherSuite:
    def test_its_record_is_named_and_no_row(self, folder: Path, make_record: MakeRecord, write_records: WriteRecords):
        write_records(make_record("guest", suite={"name": "other", "title": "Other", "position": 0}))
        assert the_problem(folder) == (
            "micro/records/micro.guest.W4A8.s0.json: a record of the suite 'other' among those of 'micro'; "
            "move it to the folder of its suite"
        )
        assert labels(folder) == ["full-precision", "round"]

    def test_it_is_no_duplicate_of_a_record_of_the_suite(self, folder: Path):
        rewritten(folder, lambda raw: raw["suite"].update(name="other"), to="a.json")
        assert "of the suite 'other'" in the_problem(folder)

    def test_in_a_folder_of_another_name_the_most_stand(self, folder: Path):
        rewritten(folder, lambda raw: raw["suite"].update(name="a") or raw.update(label="guest"), to="guest.json")
        renamed = folder.rename(folder.with_name("renamed"))
        (problem,) = read_suite_results(renamed).unreadable
        assert problem.startswith("renamed/records/guest.json: a record of the suite 'a' among those of 'micro'")
        assert labels(renamed) == ["full-precision", "round"]

    def test_a_folder_that_was_renamed_is_no_problem(self, folder: Path):
        assert read_suite_results(folder.rename(folder.with_name("renamed"))).unreadable == ()


class TestOrder:
    def test_it_is_that_of_the_suite(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record("b", position=0), make_record("a", position=1))
        assert labels(folder) == ["b", "a"]

    def test_outdated_records_keep_theirs(self, folder: Path, make_record: MakeRecord, write_records: WriteRecords):
        for position, label in ((9, "old"), (8, "older")):
            write_records(make_record(label, position=position, baseline="f" * 64))
        found = read_suite_results(folder)
        assert [record.label for record in found.outdated] == ["older", "old"]
        assert [record.label for record in found.records] == ["full-precision", "round"]


def test_two_protocols_name_the_folder_and_not_the_machine(
    folder: Path, make_record: MakeRecord, write_records: WriteRecords
):
    raw = make_record("third", position=2).model_dump(mode="json")
    raw["metrics"]["distance"]["protocol"] = "Q"
    write_records(Record.model_validate(raw))
    with pytest.raises(ResultsError, match=r"^micro: 'distance' stands for two protocols"):
        _ = read_suite_results(folder).metrics


@pytest.mark.parametrize(
    "description",
    [
        {"extractor": {"weights": {"a": 1}}, "reference": {"samples": "x", "statistics": 5}},
        {"extractor": {"weights": ["a"]}, "reference": ["samples"], "metric": []},
        {"extractor": ["weights"], "metric": "m"},
        {"extractor": 1, "metric": {"settings": 1}},
    ],
    ids=str,
)
def test_two_protocols_are_named_whatever_describes_them(folder: Path, description: dict[str, Any]):
    rewritten(folder, lambda raw: raw["metrics"]["distance"].update(description=description))
    with pytest.raises(ResultsError, match=r"^micro: 'distance' stands for two protocols"):
        _ = read_suite_results(folder).metrics


def test_paths_in_a_problem_are_seen_from_the_folder_of_results(tmp_path: Path):
    problem = f"{tmp_path}/micro/media/strips/a.png: cut\nwrong"
    assert without_folder(problem, tmp_path / "micro") == "micro/media/strips/a.png: cut wrong"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_record_that_nobody_may_read_is_named(folder: Path):
    (folder / "records" / NAME).chmod(0)
    assert "Permission denied" in the_problem(folder)


def test_what_is_read_is_what_was_written(folder: Path, make_record: MakeRecord):
    write_record(make_record(seed=7), folder / "records" / "micro.round.W4A8.s7.json")
    assert read_suite_results(folder).records == (make_record(**FULL), make_record(), make_record(seed=7))
