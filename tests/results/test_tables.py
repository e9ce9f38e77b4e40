import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import ResultsError
from qbench.records import Record
from qbench.results.reading import read_suite_results
from qbench.results.tables import write_suite_tables

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]
FULL = {"label": "full-precision", "bits": "W32A32", "position": 0}
HOSTILE = "<script>alert(1)</script> a|b `c`\n# not a headline\r\n| x | y |"


def rows(folder: Path, name: str = "table.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(folder: Path) -> str:
    return (folder / "table.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    """Return the cells of a row in Markdown; an escaped bar separates nothing."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def table(folder: Path, behind: str = "") -> list[dict[str, str]]:
    """Return the rows of the table behind some text."""
    text = markdown(folder).partition(behind)[2] if behind else markdown(folder)
    start = re.search(r"^\|", text, flags=re.MULTILINE)
    assert start is not None
    text = text[start.start() :]
    lines = text.partition("\n\n")[0].splitlines()
    header = cells(lines[0])
    assert all(len(cells(line)) == len(header) for line in lines)
    return [dict(zip(header, cells(line), strict=True)) for line in lines[2:]]


def failed(make_record: MakeRecord, reason: str, **changes: Any) -> Record:
    failures = dict.fromkeys(("distance", "mse-to-fp"), reason)
    return make_record(status="failed", reason=reason, failures=failures, figures={}, profile=None, **changes)


class TestCsv:
    def test_it_has_the_columns_that_the_design_promises(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record())
        write_suite_tables(folder)
        keys = ["workload", "method", "label", "bits", "boundary_bits", "seed", "status", "samples", "size_mb"]
        figures = [
            f"{name}{suffix}" for name in ("distance", "mse-to-fp") for suffix in ("", "_delta", "_low", "_high")
        ]
        profile = ["coverage_macs", "coverage_parameters", "left_out", "reason"]
        assert list(rows(folder)[0]) == [*keys, *profile, *figures]

    def test_what_is_left_out_and_why_a_cell_failed_stand_there(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        profile = {"size_mb": 0.5, "coverage_macs": 0.5, "coverage_parameters": 0.25, "left_out": ["conv_in", "out"]}
        bad = failed(make_record, 'sample: "no"\r\nmore\rand\x00more', label="bad", position=2)
        folder = write_records(make_record(profile=profile), bad)
        write_suite_tables(folder)
        row, other = rows(folder)
        assert (row["coverage_parameters"], row["left_out"], row["reason"]) == ("0.25", "conv_in out", "")
        assert (other["coverage_parameters"], other["left_out"], other["reason"]) == (
            "",
            "",
            'sample: "no"  more and more',
        )
        assert (folder / "table.csv").read_bytes().count(b"\n") == 3
        assert b"\r" not in (folder / "table.csv").read_bytes()

    @pytest.mark.parametrize("text", ["=1+2|x", "+1", "-x", "@x", " =1", "\t=1"])
    def test_no_text_is_a_formula_to_a_spreadsheet(
        self, make_record: MakeRecord, write_records: WriteRecords, text: str
    ):
        metric = make_record().metrics["distance"]
        bad = failed(make_record, text, label="=bad", method="@bad", metrics={"=metric": metric})
        good = make_record(figures={"distance": {"value": -1.5, "delta": -2.0, "samples": 12}}, position=2)
        folder = write_records(bad, good)
        write_suite_tables(folder)
        row, other = rows(folder)
        assert (row["label"], row["method"], row["reason"]) == ("'=bad", "'@bad", f"'{text}".replace("\t", " "))
        assert "'=metric" in row
        assert (other["distance"], other["distance_delta"]) == ("-1.5", "-2")

    def test_it_has_one_row_for_each_cell_in_the_order_of_the_suite(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        folder = write_records(
            make_record("a", position=3),
            make_record("z", position=1),
            make_record("m", position=2),
            make_record(**FULL),
        )
        write_suite_tables(folder)
        assert [row["label"] for row in rows(folder)] == ["full-precision", "z", "m", "a"]

    def test_values_are_what_the_records_say(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(**FULL), make_record(seed=7))
        write_suite_tables(folder)
        full, row = rows(folder)
        assert full | row == row | {
            "workload": "micro",
            "method": "round",
            "label": "round",
            "bits": "W4A8",
            "boundary_bits": "8",
            "seed": "7",
            "status": "complete",
            "samples": "12",
            "size_mb": "0.5",
            "coverage_macs": "0.75",
            "distance": "1.5",
            "distance_delta": "0.25",
            "distance_low": "0.125",
            "distance_high": "0.375",
        }
        assert (full["method"], full["boundary_bits"], full["distance_delta"], full["mse-to-fp"]) == ("", "", "", "0")

    def test_numbers_have_six_digits_that_matter(self, make_record: MakeRecord, write_records: WriteRecords):
        figures = {"distance": {"value": 2 / 3, "delta": 1e-9 / 3, "samples": 12}}
        folder = write_records(make_record(figures=figures))
        write_suite_tables(folder)
        assert (rows(folder)[0]["distance"], rows(folder)[0]["distance_delta"]) == ("0.666667", "3.33333e-10")

    def test_failures_and_what_was_not_run_are_told_apart_and_never_0(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        pending = make_record("later", status="pending", figures={}, profile=None, position=2)
        folder = write_records(failed(make_record, "sample: no"), pending)
        write_suite_tables(folder)
        bad, later = rows(folder)
        assert (bad["status"], bad["distance"], bad["mse-to-fp"], bad["distance_delta"]) == (
            "failed",
            "failed",
            "failed",
            "",
        )
        assert (later["status"], later["distance"], later["size_mb"]) == ("pending", "", "")

    def test_it_holds_nothing_that_varies_from_run_to_run(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record())
        write_suite_tables(folder)
        names = ("table.csv", "table.md", "protocols.json")
        before = [(folder / name).read_bytes() for name in names]
        costs = (folder / "costs.csv").read_bytes()
        stages = [{"stage": "sample", "digest": "1" * 64, "seconds": 99.0, "peak_memory_mb": 1.0}]
        write_records(make_record(stages=stages, environment={"device": "cuda"}, git={"commit": "f"}))
        write_suite_tables(folder)
        assert [(folder / name).read_bytes() for name in names] == before
        assert (folder / "costs.csv").read_bytes() != costs


def test_costs_are_in_a_table_of_their_own(make_record: MakeRecord, write_records: WriteRecords):
    def stage(kind: str, seconds: float, memory: float) -> dict[str, Any]:
        return {"stage": kind, "digest": "0" * 64, "seconds": seconds, "peak_memory_mb": memory}

    stages = [stage("sample", 2.0, 50.0), stage("sample", 3.0, 70.0), stage("weights", 0.5, 60.0)]
    folder = write_records(make_record(**FULL, stages=[stage("sample", 1.0, 10.0)]), make_record(stages=stages))
    write_suite_tables(folder)
    full, row = rows(folder, "costs.csv")
    assert (row["sample_seconds"], row["weights_seconds"], row["peak_memory_mb"], row["device"]) == (
        "5",
        "0.5",
        "70",
        "cpu",
    )
    assert (full["sample_seconds"], full["weights_seconds"]) == ("1", "")


def test_protocols_say_what_each_column_stands_for(make_record: MakeRecord, write_records: WriteRecords):
    folder = write_records(make_record())
    write_suite_tables(folder)
    found = json.loads((folder / "protocols.json").read_text())
    assert list(found) == ["distance", "mse-to-fp"]
    assert (found["distance"]["direction"], found["distance"]["protocol"]) == ("lower", "P")


class TestMarkdown:
    def test_each_figure_stands_beside_its_difference_from_full_precision(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        folder = write_records(make_record(**FULL), make_record())
        write_suite_tables(folder)
        full, row = table(folder)
        assert (full["method"], full["bits"], full["distance ↓"], full["minus full precision"]) == (
            "full-precision", "W32A32", "1.50", "",
        )  # fmt: skip
        assert (row["distance ↓"], row["MB"], row["MACs quantized"]) == ("1.50", "0.50", "75.0 %")
        assert re.fullmatch(r"\+0\.25\d* \[0\.12\d*, 0\.37\d*\]", row["minus full precision"])

    def test_fidelity_has_an_interval_and_no_difference(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(**FULL), make_record())
        write_suite_tables(folder)
        row = table(folder)[1]
        assert float(row["mse-to-fp ↓"]) == 0.25
        assert re.fullmatch(r"\[0\.12\d*, 0\.37\d*\]", row["95 %"])

    def test_the_headline_names_the_conditions(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(**FULL), make_record(), make_record(seed=3, position=2))
        write_suite_tables(folder)
        text = markdown(folder)
        assert text.startswith("# A title\n\n## micro\n\n12 samples; DDIM 4 steps, eta 0; seed 0, 3; ")
        assert "first and last layer at 8 bits" in text
        assert [row["seed"] for row in table(folder, "Each seed:")] == ["0", "0", "3"]

    @pytest.mark.parametrize(
        ("low", "high", "is_conclusive"), [(0.1, 0.4, True), (-0.4, -0.1, True), (-0.1, 0.4, False), (0.0, 0.4, False)]
    )
    def test_an_interval_that_holds_zero_is_inconclusive(
        self, low: float, high: float, is_conclusive: bool, make_record: MakeRecord, write_records: WriteRecords
    ):
        difference = {"value": 1.0, "delta": (low + high) / 2, "low": low, "high": high, "samples": 12}
        folder = write_records(
            make_record(**FULL), make_record(figures={"distance": difference, "mse-to-fp": difference})
        )
        write_suite_tables(folder)
        row = table(folder)[1]
        assert ("inconclusive" not in row["minus full precision"]) is is_conclusive
        assert "inconclusive" not in row["95 %"]  # that of a figure, which says nothing of a sign

    def test_what_has_no_interval_is_not_called_inconclusive(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        figures = {"distance": {"value": 1.0, "delta": 0.25, "samples": 12}}
        folder = write_records(make_record(**FULL), make_record(figures=figures))
        write_suite_tables(folder)
        assert table(folder)[1]["minus full precision"] == "+0.250"

    def test_a_column_of_intervals_is_there_only_if_there_is_one(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        figure = {"value": 1.0, "delta": 1.0, "samples": 12}
        folder = write_records(make_record(**FULL), make_record(figures={"distance": figure, "mse-to-fp": figure}))
        write_suite_tables(folder)
        row = table(folder)[1]
        assert "95 %" not in row
        assert (row["mse-to-fp ↓"], row["minus full precision"]) == ("1.00", "+1.00")

    def test_what_another_program_made_is_marked(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(**FULL), make_record("theirs", method="external", profile=None))
        write_suite_tables(folder)
        assert table(folder)[1]["method"] == "theirs (made elsewhere)"
        assert "Rows marked 'made elsewhere'" in markdown(folder)

    def test_a_footnote_says_what_a_column_stands_for(self, make_record: MakeRecord, write_records: WriteRecords):
        raw = make_record().model_dump(mode="json")
        raw["metrics"]["distance"] |= {
            "caveat": "not to be believed",
            "description": {
                "extractor": {"weights": {"net.pth": "0123456789abcdef"}},
                "reference": {"name": "real things", "samples": 5000},
            },
        }
        folder = write_records(Record.model_validate(raw))
        write_suite_tables(folder)
        line = (
            "- **distance** (lower is better): T; P; compared with real things (5,000); weights net.pth 0123456789ab; "
        )
        assert f"{line}not to be believed." in markdown(folder).splitlines()

    def test_every_workload_has_a_table_of_its_own(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(), make_record(workload="other", position=2))
        write_suite_tables(folder)
        assert re.findall("^## (.*)", markdown(folder), flags=re.MULTILINE) == ["micro", "other"]

    def test_failures_are_visible_with_their_reasons(self, make_record: MakeRecord, write_records: WriteRecords):
        pending = make_record("later", status="pending", figures={}, profile=None, position=2)
        folder = write_records(failed(make_record, "sample: out of luck"), pending)
        write_suite_tables(folder)
        bad, later = table(folder)
        assert (bad["distance ↓"], bad["mse-to-fp ↓"], bad["MB"]) == ("failed", "failed", "-")
        assert (later["distance ↓"], later["MB"]) == ("not run", "-")
        assert "- round W4A8 on micro, seed 0: sample: out of luck" in markdown(folder)

    @pytest.mark.parametrize("where", ["title", "reason", "protocol"])
    def test_hostile_text_stays_text(self, where: str, make_record: MakeRecord, write_records: WriteRecords):
        plain = failed(make_record, "why")
        raw = plain.model_dump(mode="json")
        if where == "title":
            raw["suite"]["title"] = HOSTILE
        elif where == "protocol":
            raw["metrics"]["distance"] |= {"protocol": HOSTILE, "title": HOSTILE}
        else:
            raw |= {"reason": HOSTILE, "failures": dict.fromkeys(raw["failures"], HOSTILE)}
        folder = write_records(plain)
        write_suite_tables(folder)
        lines = len(markdown(folder).splitlines())
        folder = write_records(Record.model_validate(raw))
        write_suite_tables(folder)
        text = markdown(folder)
        assert len(text.splitlines()) == lines
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert "a\\|b" in text
        assert not [line for line in text.splitlines() if line.startswith("# not a headline")]
        assert [row["method"] for row in table(folder)] == ["round"]
        assert rows(folder)[0]["distance"] == "failed"

    def test_names_that_are_not_unicode_can_be_written(self, make_record: MakeRecord, write_records: WriteRecords):
        """Python shows the bytes of a file name that is not UTF-8 as lone surrogates."""
        folder = write_records(failed(make_record, "weights: OSError: '/data/caf\udce9' is not there"))
        write_suite_tables(folder)
        assert "is not there" in markdown(folder)


class TestSeeds:
    SUMMARY = "Mean over seeds (lowest to highest):"

    def seed(self, make_record: MakeRecord, seed: int, value: float, label: str = "round", **changes: Any) -> Record:
        figure = {"value": value, "samples": 12} | ({} if label == "full-precision" else {"delta": value - 1})
        full = FULL if label == "full-precision" else {"label": label}
        return make_record(**full, seed=seed, figures={"distance": figure, "mse-to-fp": figure}, **changes)

    def test_their_spread_is_shown(self, make_record: MakeRecord, write_records: WriteRecords):
        full = [self.seed(make_record, seed, 1.0 + seed / 10, "full-precision") for seed in (0, 1, 2)]
        folder = write_records(*full, *(self.seed(make_record, seed, 2.0 + seed) for seed in (0, 1, 2)))
        write_suite_tables(folder)
        baseline, row = table(folder, self.SUMMARY)
        assert baseline["distance ↓"] == "1.10 (1.00 to 1.20)"
        assert baseline["minus full precision"] == "-"
        assert (row["seeds"], row["distance ↓"]) == ("3", "3.00 (2.00 to 4.00)")
        assert row["minus full precision"] == "+2.00 (+1.00 to +3.00)"
        assert row["mse-to-fp ↓"] == "3.00 (2.00 to 4.00)"
        assert "Seeds set calibration and sampling noise" in markdown(folder)

    def test_a_seed_that_failed_is_counted(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(self.seed(make_record, 0, 2.0), failed(make_record, "why", seed=1))
        write_suite_tables(folder)
        assert table(folder, self.SUMMARY)[0]["distance ↓"] == "2.00, 1 of 2 seeds"

    def test_bits_and_exceptions_are_rows_of_their_own(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(
            *(self.seed(make_record, seed, 2.0, bits=bits) for seed in (0, 1) for bits in ("W4A8", "W3A8")),
            *(self.seed(make_record, seed, 2.0, label="strict", boundary_bits=None) for seed in (0, 1)),
        )
        write_suite_tables(folder)
        rows = [(row["method"], row["bits"], row["first, last"], row["seeds"]) for row in table(folder, self.SUMMARY)]
        assert sorted(rows) == [
            ("round", "W3A8", "W8", "2"),
            ("round", "W4A8", "W8", "2"),
            ("strict", "W4A8", "-", "2"),
        ]

    def test_one_seed_has_no_spread(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(**FULL), make_record())
        write_suite_tables(folder)
        assert self.SUMMARY not in markdown(folder)


class TestStrangers:
    @pytest.fixture
    def folder(self, make_record: MakeRecord, write_records: WriteRecords) -> Path:
        return write_records(make_record(**FULL), make_record())

    @pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '{"schema_version": 99}'])
    def test_what_is_no_record_is_named_and_breaks_nothing(self, folder: Path, content: str):
        (folder / "records" / "aaa.json").write_text(content)
        found = write_suite_tables(folder)
        assert [reason for reason in found.unreadable if "aaa.json" in reason] == list(found.unreadable) != []
        assert [row["label"] for row in rows(folder)] == ["full-precision", "round"]

    def test_an_altered_record_is_named_and_not_in_the_table(self, folder: Path):
        path = folder / "records" / "micro.round.W4A8.s0.json"
        path.write_text(path.read_text().replace('"steps": 4', '"steps": 5'))
        found = write_suite_tables(folder)
        assert len(found.unreadable) == 1
        assert "altered" in found.unreadable[0]
        assert [row["label"] for row in rows(folder)] == ["full-precision"]

    @pytest.mark.parametrize(
        "description",
        [
            {},
            {"workload": "micro"},
            {"workload": {"settings": {"sampler": 7}}},
            {"workload": {"settings": {"sampler": {"name": "ddim"}}}},
        ],
        ids=["empty", "a name", "no sampler", "no steps"],
    )
    def test_a_record_that_somebody_else_made_up_is_named_and_breaks_nothing(
        self, folder: Path, make_record: MakeRecord, write_records: WriteRecords, description: dict[str, Any]
    ):
        """Its digest is right, its description is not what a cell's is."""
        write_records(make_record("stranger", position=9, description=description))
        found = write_suite_tables(folder)
        labels = [row["label"] for row in rows(folder)]
        assert labels[:2] == ["full-precision", "round"]
        told = [record.label for record in found.outdated] + list(found.unreadable)
        assert labels[2:] == ["stranger"] or any("stranger" in reason for reason in told)

    def test_other_files_are_left_alone(self, folder: Path):
        for name in (".micro.json.1234", "notes.txt", ".probe-1"):
            (folder / "records" / name).write_text("{")
        assert write_suite_tables(folder).unreadable == ()

    def test_a_folder_without_records_has_an_empty_table(self, tmp_path: Path):
        (tmp_path / "records").mkdir()
        assert write_suite_tables(tmp_path).records == ()
        assert markdown(tmp_path) == "No records.\n"
        assert rows(tmp_path) == []


class TestOutdated:
    """Rows whose difference is from another full precision than the one in the folder."""

    @pytest.fixture
    def folder(self, make_record: MakeRecord, write_records: WriteRecords) -> Path:
        old = make_record("older", position=2, baseline="f" * 64)
        return write_records(make_record(**FULL), make_record(), old)

    def test_they_are_named_and_not_in_the_table(self, folder: Path):
        found = write_suite_tables(folder)
        assert [record.label for record in found.outdated] == ["older"]
        assert [row["label"] for row in rows(folder)] == ["full-precision", "round"]
        assert [row["method"] for row in table(folder)] == ["full-precision", "round"]
        assert "run the suite again: older W4A8 on micro, seed 0." in markdown(folder)

    def test_another_seed_has_its_own_full_precision(self, make_record: MakeRecord, write_records: WriteRecords):
        other = make_record("older", seed=1, baseline="f" * 64)
        folder = write_records(make_record(**FULL), make_record(), other)
        assert write_suite_tables(folder).outdated == ()
        assert len(rows(folder)) == 3

    @pytest.mark.parametrize("change", [{"samples": 40}, {"description": {"workload": {"name": "other"}}}])
    def test_seeds_that_were_not_sampled_alike_do_not_share_a_table(
        self, make_record: MakeRecord, write_records: WriteRecords, change: dict[str, Any]
    ):
        folder = write_records(make_record(**FULL), make_record(), make_record("round", seed=1, **change))
        assert [record.seed for record in write_suite_tables(folder).outdated] == [1]
        assert [row["seed"] for row in rows(folder)] == ["0", "0"]
        assert "Not shown, sampled in another way" in markdown(folder)


class TestBoundaryBits:
    def test_rows_that_differ_in_them_say_so(self, make_record: MakeRecord, write_records: WriteRecords):
        strict = make_record("strict", position=2, boundary_bits=None)
        folder = write_records(make_record(**FULL, boundary_bits=None), make_record(boundary_bits=8), strict)
        write_suite_tables(folder)
        assert [row["first, last"] for row in table(folder)] == ["-", "W8", "-"]
        assert "weights of the first and last layer differ between rows" in markdown(folder)

    def test_what_all_share_stands_above(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(**FULL, boundary_bits=None), make_record(boundary_bits=8))
        write_suite_tables(folder)
        assert "first, last" not in table(folder)[0]
        assert "weights of the first and last layer at 8 bits" in markdown(folder)


class TestProtocols:
    @pytest.fixture
    def folder(self, make_record: MakeRecord, write_records: WriteRecords) -> Path:
        raw = make_record("other", position=2).model_dump(mode="json")
        raw["metrics"]["distance"] |= {
            "protocol": "Q",
            "description": {"extractor": {"weights": {"net.safetensors": "ab" * 32}}},
        }
        return write_records(make_record(), Record.model_validate(raw))

    def test_two_in_one_column_are_refused_and_both_are_named(self, folder: Path):
        with pytest.raises(ResultsError, match="'distance' stands for two protocols") as refusal:
            write_suite_tables(folder)
        words = str(refusal.value)
        assert "micro.round.W4A8.s0 (P)" in words
        assert "micro.other.W4A8.s0 (Q, weights abababababab)" in words
        assert "\n" not in words

    def with_reference(self, record: Record, name: str, digest: str) -> Record:
        raw = record.model_dump(mode="json")
        raw["metrics"]["distance"]["description"] = {
            "reference": {"name": name, "samples": 1000, "statistics": digest},
            "metric": {"settings": {"k": 3}},
        }
        return Record.model_validate(raw)

    def test_workloads_may_have_their_own_real_images(self, make_record: MakeRecord, write_records: WriteRecords):
        one = self.with_reference(make_record(), "cats", "ab" * 32)
        other = self.with_reference(make_record(workload="other", position=2), "dogs", "cd" * 32)
        folder = write_records(one, other)
        write_suite_tables(folder)
        assert "; compared with cats (1,000) on micro, dogs (1,000) on other." in markdown(folder)
        references = json.loads((folder / "protocols.json").read_text())["distance"]["references"]
        assert {workload: each["name"] for workload, each in references.items()} == {"micro": "cats", "other": "dogs"}

    def test_one_workload_may_not(self, make_record: MakeRecord, write_records: WriteRecords):
        one = self.with_reference(make_record(), "cats", "ab" * 32)
        other = self.with_reference(make_record("other", position=2), "cats", "cd" * 32)
        with pytest.raises(ResultsError, match="stands for two protocols") as refusal:
            write_suite_tables(write_records(one, other))
        for digest in ("ab", "cd"):
            assert f'P, settings {{"k": 3}}, compared with cats (1000, {digest * 6})' in str(refusal.value)

    def test_a_figure_that_failed_for_want_of_weights_is_no_other_protocol(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        complete = self.with_reference(make_record(position=2), "cats", "ab" * 32)
        lacking = failed(make_record, "no weights", label="other", position=1)
        folder = write_records(lacking, complete)
        write_suite_tables(folder)
        assert "compared with cats (1,000)" in markdown(folder)

    def test_the_tables_of_before_stay(self, folder: Path):
        (folder / "table.csv").write_text("before\n")
        with pytest.raises(ResultsError):
            write_suite_tables(folder)
        assert (folder / "table.csv").read_text() == "before\n"
        assert not (folder / "table.md").exists()

    @pytest.mark.parametrize(
        "change",
        [{"direction": "higher"}, {"against": "nothing"}, {"description": {"metric": "m", "revision": 2}}],
        ids=["direction", "against", "revision"],
    )
    def test_whatever_makes_figures_incomparable_counts(
        self, make_record: MakeRecord, write_records: WriteRecords, change: dict[str, Any]
    ):
        raw = make_record("other").model_dump(mode="json")
        raw["metrics"]["distance"] |= change
        with pytest.raises(ResultsError, match="two protocols"):
            write_suite_tables(write_records(make_record(), Record.model_validate(raw)))

    def test_cells_may_have_different_metrics(self, make_record: MakeRecord, write_records: WriteRecords):
        raw = make_record("other", position=2).model_dump(mode="json")
        raw["metrics"] = {"mse-to-fp": raw["metrics"]["mse-to-fp"]}
        raw["figures"] = {"mse-to-fp": raw["figures"]["mse-to-fp"]}
        folder = write_records(make_record(), Record.model_validate(raw))
        write_suite_tables(folder)
        assert [row["distance"] for row in rows(folder)] == ["1.5", ""]


def test_reading_keeps_the_order_of_the_suite(make_record: MakeRecord, write_records: WriteRecords):
    folder = write_records(make_record("b", position=0), make_record("a", position=1))
    assert [record.label for record in read_suite_results(folder).records] == ["b", "a"]


def test_tables_that_say_the_same_are_not_written_again(make_record: MakeRecord, write_records: WriteRecords):
    folder = write_records(make_record())
    write_suite_tables(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    write_suite_tables(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.*")} == before
