"""What the Markdown of a suite marks, prints beside figures and tells below them; the rest is in test_tables.py."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.best import contests
from qbench.results.leaderboard import regenerate
from qbench.results.markdown import escaped, item, link, suite_markdown
from qbench.results.published import Protocol, PublishedFigure, Source
from qbench.results.tables import write_suite_tables
from qbench.results.verdicts import Verdict

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]
FULL = {"label": "full-precision", "bits": "W32A32"}
GROUPS = 20
EACH_SEED = "Each seed:"
PUBLISHED = "Published figures, which were not measured here:"


@pytest.fixture
def cell(make_record: MakeRecord) -> MakeRecord:
    """Return a function that makes a cell whose figure is the same without any images."""

    def make(label: str, value: float, **changes: Any) -> Record:
        difference = {} if label == "full-precision" else {"delta": value - 1, "low": value - 1.5, "high": value - 0.5}
        figure = {"value": value, "samples": 12, "without": [value] * GROUPS} | difference
        profile = {"size_mb": 0.5, "coverage_macs": 0.75, "coverage_parameters": 1.0, "left_out": []}
        profile |= changes.pop("profile", {})
        return make_record(label, figures={"distance": figure}, profile=profile, **changes)

    return make


def markdown(folder: Path) -> str:
    return (folder / "table.md").read_text(encoding="utf-8")


def table(text: str, behind: str = "") -> list[dict[str, str]]:
    """Return the rows of the first table behind some text."""
    text = text.partition(behind)[2] if behind else text
    lines = text[text.index("\n|") + 1 :].partition("\n\n")[0].splitlines()
    rows = [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert {len(row) for row in rows} == {len(rows[0])}
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


class TestOrder:
    def test_full_precision_comes_first_and_then_bits_by_bits(self, cell: MakeRecord, write_records: WriteRecords):
        folder = write_records(
            cell("a", 2.0, bits="W8A8", position=0),
            cell("a", 2.0, bits="W4A8", position=1),
            cell("b", 2.0, bits="W8A8", position=2),
            cell("strict", 2.0, bits="W8A8", position=3, boundary_bits=None),
            cell("full-precision", 1.0, bits="W32A32", position=4),
        )
        write_suite_tables(folder)
        assert [(row["method"], row["bits"]) for row in table(markdown(folder))] == [
            ("full-precision", "W32A32"), ("a", "W8A8"), ("b", "W8A8"), ("a", "W4A8"), ("strict", "W8A8"),
        ]  # fmt: skip


class TestTheBest:
    def test_it_is_marked_where_it_is_sure(self, cell: MakeRecord, write_records: WriteRecords):
        folder = write_records(
            cell("full-precision", 0.5, bits="W32A32", position=0),
            cell("a", 2.0, position=1),
            cell("b", 3.0, position=2),
            cell("a", 2.0, bits="W8A8", position=3),
            cell("b", 2.0, bits="W8A8", position=4),
            cell("a", 1.0, bits="W2A8", position=5),
        )
        write_suite_tables(folder)
        assert [row["distance ↓"] for row in table(markdown(folder))] == [
            "0.500", "**2.00**", "3.00", "2.00", "2.00", "1.00",
        ]  # fmt: skip
        assert "Bold is the best figure of equal bits, marked only where" in markdown(folder)

    def test_of_several_seeds_the_mean_is_marked(self, cell: MakeRecord, write_records: WriteRecords):
        rows = [cell(label, value + seed, seed=seed) for label, value in (("a", 2.0), ("b", 4.0)) for seed in (0, 1)]
        folder = write_records(*rows)
        write_suite_tables(folder)
        text = markdown(folder)
        over_seeds = table(text, "Mean over seeds")
        assert [row["distance ↓"] for row in over_seeds] == ["**2.50** (2.00 to 3.00)", "4.50 (4.00 to 5.00)"]
        assert [row["MACs quantized"] for row in over_seeds] == ["75.0 %"] * 2
        assert not [row for row in table(text, EACH_SEED) if "**" in row["distance ↓"]]

    def test_winners_of_finished_seeds_are_marked_while_another_is_run(
        self, cell: MakeRecord, make_record: MakeRecord, write_records: WriteRecords
    ):
        rows = [cell(label, value) for label, value in (("a", 2.0), ("b", 4.0))]
        rows += [make_record(label, status="pending", figures={}, profile=None, seed=1) for label in ("a", "b")]
        folder = write_records(*rows)
        regenerate(folder.parent)
        over_seeds = table(markdown(folder), "Mean over seeds")
        assert [row["distance ↓"] for row in over_seeds] == ["**2.00**, 1 of 2 seeds", "4.00, 1 of 2 seeds"]
        assert "**a** 2.00 |" in (folder.parent / "README.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("without", "is_paired"), [([2.0] * GROUPS, True), ([], False)], ids=["groups", "older records"]
    )
    def test_only_what_is_paired_is_called_so(self, without: list[float], is_paired: bool, make_record: MakeRecord):
        records = [
            make_record(label, figures={"distance": figure | {"low": low, "high": low + 0.5}}, position=position)
            for position, (label, low) in enumerate((("a", 0.75), ("b", 1.75)))
            for figure in [{"value": low + 1.25, "delta": low + 0.25, "samples": 12, "without": without}]
        ]
        found = contests(records, ["distance"])
        text = suite_markdown(records, records[0].metrics, contests=found)
        (bold,) = (line for line in text.splitlines() if line.startswith("- Bold"))
        assert ("every other row, paired by noise, excludes zero" in bold) is is_paired
        assert ("intervals of their differences from full precision must not overlap" in bold) is not is_paired

    def test_without_rivals_nothing_is_said_of_it(self, cell: MakeRecord, write_records: WriteRecords):
        folder = write_records(cell("a", 2.0))
        write_suite_tables(folder)
        assert "Bold" not in markdown(folder)

    def test_a_row_that_leaves_layers_out_does_not_compete_and_says_so(
        self, cell: MakeRecord, write_records: WriteRecords
    ):
        partial = {"coverage_macs": 0.5, "left_out": [f"layer{index}" for index in range(14)]}
        folder = write_records(cell("a", 2.0), cell("b", 3.0, position=2), cell("c", 1.0, position=3, profile=partial))
        write_suite_tables(folder)
        text = markdown(folder)
        assert [row["distance ↓"] for row in table(text)] == ["**2.00**", "3.00", "1.00"]
        assert [row["left out"] for row in table(text)] == ["-", "-", "14"]
        assert "- c W4A8 (W8 first, last) on micro: 50.0 % of MACs quantized, of others 75.0 %" in text
        assert "- c W4A8 on micro: layer0, layer1, " in text
        assert "layer11 and 2 more\n" in text


class TestOverSeeds:
    def rows(self, cell: MakeRecord, *values: float) -> list[Record]:
        full = [cell("full-precision", 1.0, bits="W32A32", seed=seed, position=0) for seed in range(len(values))]
        noise = [0.02 * (-1) ** group for group in range(GROUPS)]
        return full + [
            record.model_copy(
                update={
                    "figures": {
                        "distance": record.figures["distance"].model_copy(
                            update={"without": [record.figures["distance"].value + each for each in noise]}
                        )
                    }
                }
            )
            for record in (cell("a", value, seed=seed) for seed, value in enumerate(values))
        ]

    def test_the_interval_of_the_mean_difference_stands_before_the_range(self, cell: MakeRecord):
        records = self.rows(cell, 2.0, 3.0)
        full, row = table(suite_markdown(records, records[0].metrics), "Mean over seeds")
        # Of one seed 2.093 * sqrt(19 / 20 * 20 * 0.02 ** 2) = 0.1825, of the mean of two that by the root of two.
        assert full[r"minus full precision \[95 %\] (over seeds)"] == "-"
        assert row[r"minus full precision \[95 %\] (over seeds)"] == "+1.50 [1.37, 1.63] (+1.00 to +2.00)"

    def test_one_that_holds_zero_is_inconclusive(self, cell: MakeRecord):
        records = self.rows(cell, 1.0, 1.1)
        text = suite_markdown(records, records[0].metrics)
        _, row = table(text, "Mean over seeds")
        assert row[r"minus full precision \[95 %\] (over seeds)"] == (
            "+0.050 [-0.079, 0.179] inconclusive (+0.000 to +0.100)"
        )
        assert "the difference is inconclusive: its sign is not known from these images." in text

    def test_without_full_precision_there_is_none(self, cell: MakeRecord):
        records = self.rows(cell, 2.0, 3.0)[1:]
        *_, row = table(suite_markdown(records, records[0].metrics), "Mean over seeds")
        assert row["minus full precision"] == "+1.50 (+1.00 to +2.00)"


class TestMissingCells:
    def test_what_was_not_run_is_named(self, cell: MakeRecord, make_record: MakeRecord, write_records: WriteRecords):
        pending = make_record("later", status="pending", figures={}, profile=None, position=2)
        folder = write_records(cell("a", 2.0), pending)
        write_suite_tables(folder)
        assert "Not run to the end:\n\n- later W4A8 on micro, seed 0\n" in markdown(folder)

    def test_a_figure_of_a_cell_that_failed_is_no_figure(self, cell: MakeRecord, write_records: WriteRecords):
        bad = cell("bad", 0.5, status="failed", reason="why", failures={"distance": "why"}, position=2)
        folder = write_records(cell("a", 2.0), bad)
        write_suite_tables(folder)
        row = table(markdown(folder))[1]
        assert (row["distance ↓"], row["minus full precision"]) == ("failed", "")


class TestPublished:
    @pytest.fixture
    def figure(self) -> Callable[..., PublishedFigure]:
        def make(value: float, method: str | None = "a", **changes: Any) -> PublishedFigure:
            values: dict[str, Any] = {"file": "p", "bits": "W4A8", "workload": "micro", "metric": "distance"}
            values |= {"source": Source("A. Author 2023", "table 1"), "protocol": Protocol(), "checked": True}
            return PublishedFigure(method=method, value=value, **(values | changes))

        return make

    def test_they_stand_beside_ours_with_a_verdict(self, cell: MakeRecord, figure: Callable[..., PublishedFigure]):
        record = cell("a", 2.0)
        verdicts = [
            Verdict(figure(2.25), record, "distance", 2.0, "reproduced", ("0.25 apart",), 0.5),
            Verdict(figure(9.5, checked=False), record, "distance", 2.0, "better", ("7.5 apart",), 0.5),
        ]
        text = suite_markdown([cell("full-precision", 1.0, bits="W32A32"), record], record.metrics, verdicts=verdicts)
        full, row = table(text)
        assert (full["published"], row["published"]) == ("", "2.25 reproduced; 9.5 (unchecked) better")
        assert table(text, PUBLISHED) == [
            {
                "method": "a", "bits": "W4A8", "metric": "distance", "published": published, "source": "1",
                "measured": "2.00", "as": "", "verdict": verdict, "why": why,
            }
            for published, verdict, why in (
                ("2.25", "reproduced", "0.25 apart"),
                ("9.5 (unchecked)", "better", "7.5 apart"),
            )
        ]  # fmt: skip
        assert "- 1: A. Author 2023, table 1." in text.splitlines()

    def test_a_standin_is_only_listed_and_common_reasons_are_told_once(
        self, cell: MakeRecord, figure: Callable[..., PublishedFigure]
    ):
        standin = {"workload": "large", "metrics": {"fid": "distance"}}
        record = cell("a", 2.0, stands_in_for=standin)
        reasons = ("micro stands in for large", "one reason only"), ("micro stands in for large",)
        verdicts = [
            Verdict(figure(3.0, metric="fid", workload="large"), record, "distance", 2.0, "not comparable", each, 0.5)
            for each in reasons
        ]
        verdicts.append(
            Verdict(
                figure(4.0, "ptqd", metric="fid", workload="large"), None, "fid", None, "not comparable", ("no",), 0.5
            )
        )
        text = suite_markdown([record], record.metrics, verdicts=verdicts)
        assert "published" not in table(text)[0]
        rows = table(text, PUBLISHED)
        assert [(row["as"], row["why"]) for row in rows] == [("distance", "(a); one reason only"), ("distance", "(a)")]
        assert "- (a) micro stands in for large." in text.splitlines()
        assert "Published, and not run here: ptqd W4A8: fid 4." in text.splitlines()

    def test_those_of_other_workloads_stand_elsewhere(self, cell: MakeRecord, figure: Callable[..., PublishedFigure]):
        verdict = Verdict(figure(4.0, workload="large"), None, "distance", None, "not comparable", ("no",), 0.5)
        record = cell("a", 2.0)
        assert PUBLISHED not in suite_markdown([record], record.metrics, verdicts=[verdict])

    def test_what_a_paper_is_called_stays_text(self, cell: MakeRecord, figure: Callable[..., PublishedFigure]):
        record = cell("a", 2.0)
        source = Source("<script>|x|\n# A", "table *1*", "javascript:[x](y)")
        verdict = Verdict(figure(4.0, source=source), record, "distance", 2.0, "worse", ("<b>|\n# why",), 0.5)
        text = suite_markdown([record], record.metrics, verdicts=[verdict])
        assert "<script" not in text
        assert "<b>" not in text
        assert not [line for line in text.splitlines() if line.startswith(("# A, table", "# why"))]
        assert len(table(text, PUBLISHED)) == 1


class TestText:
    def test_nothing_means_more_than_text(self):
        assert escaped("<b>&amp; a|b `c` *d* [e](f) \\ ~~g~~ $h$\n# i") == (
            r"&lt;b&gt;&amp;amp; a\|b \`c\` \*d\* \[e\](f) \\ \~\~g\~\~ \$h\$ # i"
        )
        assert escaped("snake_case _emphasis_ __strong__") == r"snake_case \_emphasis\_ \_\_strong\_\_"

    @pytest.mark.parametrize("text", ["# a", "- a", "+ a", "> a", "=== a", "1. a", "2) a"])
    def test_a_line_of_a_list_begins_nothing_else(self, text: str):
        assert re.match(r"- (\\|&|\d\\)", item(text))

    def test_a_link_leads_to_a_file_whatever_its_name(self):
        assert link("a]b", "a) (b/<c> d.md") == r"[a\]b](a%29%20%28b/%3Cc%3E%20d.md)"
