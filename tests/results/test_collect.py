"""What a record says of where it came from, and what it keeps so that rows can be compared."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.metrics.confidence import GROUPS, jackknife_interval
from qbench.plan import make_plan
from qbench.records import Record, read_record
from qbench.results.collect import pending_record
from qbench.results.strips import read_strip, strip_path
from qbench.suite import find_suite, load_suite

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]


def records(workplace: Path, suite: str = "micro") -> dict[str, Record]:
    paths = sorted((workplace / "results" / suite / "records").glob("*.json"))
    found = [read_record(path) for path in paths]
    return {f"{record.label} {record.bits}": record for record in found}


def test_a_figure_keeps_what_its_interval_was_made_of(qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
    micro_suite(samples=60, bits=["W4A32"])
    assert qbench("run", "micro.yaml").code == 0
    found = records(workplace)
    full, row = (found[key].figures["micro-distance"] for key in ("full-precision W32A32", "round W4A32"))
    assert len(full.without) == len(row.without) == GROUPS
    assert row.delta is not None
    again = jackknife_interval(row.delta, [own - other for own, other in zip(row.without, full.without, strict=True)])
    assert again is not None
    assert (again.low, again.high) == pytest.approx((row.low, row.high), rel=1e-5)


def test_too_few_images_leave_nothing_to_compare_in_pairs(finished_suite: Path, workplace: Path):
    assert all(not figure.without for record in records(workplace).values() for figure in record.figures.values())


def test_a_record_says_what_it_was_started_with_and_names_no_folder(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path
):
    (workplace / "suites").mkdir()
    micro_suite("suites/micro.yaml", bits=["W4A32"], published="some-paper")
    chosen = ("--set", "samples=8", "--set", f"title={workplace}/x", "--set", "name=renamed")
    assert qbench("run", workplace / "suites" / "micro.yaml", *chosen).code == 0
    for record in records(workplace, "renamed").values():
        assert (record.suite.file, record.suite.standin) == ("micro.yaml", False)
        assert record.suite.overrides == {"samples": 8, "title": "...", "name": "renamed"}
        assert record.suite.published == ["some-paper"]
        assert record.stands_in_for is None


def test_an_installed_suite_is_named_without_a_suffix_wherever_its_copy_lies(tmp_path: Path):
    copy = tmp_path / "smoke.yaml"
    copy.write_bytes(find_suite("smoke").read_bytes())
    for path, name in ((find_suite("smoke"), "smoke"), (copy, "smoke")):
        suite = load_suite(path)
        assert pending_record(suite, make_plan(suite).cells[0]).suite.file == name
    copy.write_text(copy.read_text().replace("samples:", "# changed\nsamples:"))
    suite = load_suite(copy)
    assert pending_record(suite, make_plan(suite).cells[0]).suite.file == "smoke.yaml"


def test_a_standin_says_what_it_stands_in_for():
    suite = load_suite(find_suite("paper_table1"), standin=True)
    record = pending_record(suite, make_plan(suite).cells[-1])
    assert record.suite.standin
    assert record.suite.published[0] == "q-diffusion"
    assert record.stands_in_for is not None
    assert record.stands_in_for.workload == "ddim-cifar10"
    assert record.stands_in_for.metrics["fid"] == "fd-fashion"
    json.dumps(record.model_dump(mode="json"))


def test_published_figures_of_included_suites_count_once():
    assert load_suite(find_suite("paper"), standin=True).published == ("q-diffusion", "ptq4dm", "tfmq-dm", "quest")


def test_each_cell_with_images_leaves_a_strip_of_its_own(finished_suite: Path, workplace: Path):
    folder = workplace / "results" / "micro"
    for record in records(workplace).values():
        info, _ = read_strip(strip_path(folder, record))
        assert (info.digest, info.count) == (record.digest, 12)


def test_a_strip_follows_its_cell_and_outlives_the_store(qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
    micro_suite(bits=["W4A32"])
    assert qbench("run", "micro.yaml").code == 0
    folder = workplace / "results" / "micro"
    first = records(workplace)["round W4A32"]
    micro_suite(bits=["W4A32"], seeds=[0], boundary_bits=8)
    assert qbench("run", "micro.yaml").code == 0
    second = records(workplace)["round W4A32"]
    assert first.digest != second.digest
    assert read_strip(strip_path(folder, second))[0].digest == second.digest
    sheet = (folder / "media" / "micro.s0.png").read_bytes()
    (folder / "media" / "micro.s0.png").unlink()
    shutil.rmtree(workplace / "store")
    assert qbench("leaderboard").code == 0
    assert (folder / "media" / "micro.s0.png").read_bytes() == sheet


def test_a_figure_that_fails_takes_no_images_away(qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
    micro_suite(bits=["W4A32"], metrics=["micro-nan"])
    assert qbench("run", "micro.yaml").code == 1
    record = records(workplace)["round W4A32"]
    assert record.status == "failed"
    assert strip_path(workplace / "results" / "micro", record).is_file()
