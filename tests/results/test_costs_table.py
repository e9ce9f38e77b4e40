"""``costs.md`` and the columns of ``costs.csv``: where a speed-up is shown, and where none is."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.costs import number_text
from qbench.results.costs_table import cost_facts, costs_markdown
from qbench.results.csv_tables import LATENCY, costs_csv

MakeRecord = Callable[..., Record]
LATENCY_INFO: dict[str, Any] = {
    "batch": 16,
    "step_index": 3,
    "rounds": 9,
    "device": "cpu",
    "device_name": "A chip",
    "instructions": "AVX2, no VNNI",
    "threads": 2,
    "dtype": "float32",
    "compiled": False,
    "packed_mb": 0.5,
    "resident_mb": 4.0,
    "full_precision": {"seconds": 0.09, "peak_mb": 2.5},
    "quantized": {"seconds": 0.03, "peak_mb": 2.75},
}
INT8 = {"seconds": 0.05, "peak_mb": 2.0, "macs": 0.994, "difference": 0.00123, "largest_difference": 0.5}


@pytest.fixture
def measured(make_record: MakeRecord) -> MakeRecord:
    def make(bits: str = "W4A8", label: str = "round", changes: Any = None, **others: Any) -> Record:
        latency = {**LATENCY_INFO, **(changes or {})}
        return make_record(label, bits, schema_version=3, latency=latency, **others)

    return make


def table(text: str) -> list[dict[str, str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_what_is_simulated_has_no_speed_up_however_fast_it_was(measured: MakeRecord):
    (row,) = table(costs_markdown([measured()]))
    assert row["call, full precision s"] == "0.0900"
    assert row["call, quantized s"] == "0.0300 simulated"
    assert row["speed-up"] == "none: simulated"
    assert "times" not in str(row)
    assert "int8 difference" not in row


def test_integer_kernels_show_the_ratio_their_instructions_and_the_difference(measured: MakeRecord):
    (row,) = table(costs_markdown([measured("W8A8", changes={"int8": INT8})]))
    assert row["speed-up"] == "int8 (AVX2, no VNNI): 1.80 times"
    assert row["call, quantized s"] == "0.0500 int8, 0.0300 simulated"
    assert (row["int8 difference"], row["int8 MACs"]) == ("0.00123", "99 %")


def test_full_precision_has_a_call_and_nothing_to_compare(measured: MakeRecord):
    (row,) = table(costs_markdown([measured("W32A32", "full-precision", {"quantized": None})]))
    assert (row["call, full precision s"], row["call, quantized s"], row["speed-up"]) == ("0.0900", "-", "-")


def test_without_latency_there_are_no_such_columns(make_record: MakeRecord):
    text = costs_markdown([make_record()])
    assert list(table(text)[0]) == ["method", "bits", "calibration s", "sampling s", "peak memory MB", "packed MB"]
    assert "simulated" not in text
    assert "Calls of the denoiser were not measured" in text
    assert "Made on cpu, 1 thread." in text
    assert (table(text)[0]["sampling s"], table(text)[0]["calibration s"]) == ("2.50", "-")


def test_a_failure_is_shown_with_its_reason(make_record: MakeRecord):
    text = costs_markdown([make_record(schema_version=3, latency_failure="latency: <b>no</b> | luck")])
    assert table(text)[0]["speed-up"] == "failed"
    assert r"&lt;b&gt;no&lt;/b&gt; \| luck" in text


def test_seeds_are_one_row_and_the_calls_are_of_the_one_that_has_them(make_record: MakeRecord, measured: MakeRecord):
    slow = [{"stage": "sample", "digest": "0" * 64, "seconds": 3.5, "peak_memory_mb": 300.0}]
    text = costs_markdown([measured(), make_record(seed=1, stages=slow)])
    (row,) = table(text)
    assert (row["sampling s"], row["peak memory MB"], row["call, quantized s"]) == ("3.00", "300", "0.0300 simulated")
    assert "mean over seeds 0, 1, calls of seed 0." in text


def test_hostile_names_stay_text(measured: MakeRecord):
    text = costs_markdown([measured(label="a|b<script>", workload="*w*", changes={"device_name": "<i>chip</i>|"})])
    assert "<script>" not in text
    assert "<i>" not in text
    assert r"a\|b&lt;script&gt;" in text


def test_no_records_are_no_error():
    assert costs_markdown([]) == "No records.\n"


def test_the_csv_has_the_old_columns_first_and_in_order(tmp_path: Path, make_record: MakeRecord, measured: MakeRecord):
    stages = [
        {"stage": kind, "digest": "0" * 64, "seconds": 1.5, "peak_memory_mb": 10.0}
        for kind in ("trajectory", "weights", "activations", "sample", "sample")
    ]
    records = [make_record(label="full-precision"), measured("W8A8", changes={"int8": INT8}, stages=stages)]
    full, row = csv.DictReader(costs_csv(records).splitlines())
    assert list(row)[:10] == [
        "workload", "method", "label", "bits", "boundary_bits", "seed",
        "activations_seconds", "sample_seconds", "trajectory_seconds", "weights_seconds",
    ]  # fmt: skip
    assert list(row)[10:] == [
        "peak_memory_mb",
        "device",
        "threads",
        "calibration_seconds",
        "sampling_seconds",
        *LATENCY,
    ]
    assert (row["calibration_seconds"], row["sampling_seconds"]) == ("4.5", "3")
    assert [row[name] for name in LATENCY] == [
        "16", "0.09", "0.03", "simulated", "0.05", "0.00123", "0.994", "4", "2.75", "float32", "False", "AVX2, no VNNI",
    ]  # fmt: skip
    assert {full[name] for name in LATENCY} == {""}


def test_the_page_is_told_the_same(measured: MakeRecord, make_record: MakeRecord):
    facts = dict(cost_facts(measured("W8A8", changes={"int8": INT8})))
    assert facts["sampling"] == "2.5 s"
    assert facts["speed-up"] == "int8 (AVX2, no VNNI): 1.80 times"
    assert "A chip, AVX2, no VNNI, 2 threads, float32, not compiled" in facts["calls measured"]
    assert dict(cost_facts(measured()))["speed-up"] == "none: simulated"
    assert list(dict(cost_facts(make_record()))) == ["sampling", "peak memory"]
    assert dict(cost_facts(make_record(schema_version=3, latency_failure="why")))["latency"] == "failed: why"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (0.00123456, "0.00123"), (1.5, "1.50"), (974.5, "974"), (12345.6, "12346")],
)
def test_numbers_have_three_digits_and_no_power_of_ten(value: float | None, text: str):
    assert number_text(value) == text
