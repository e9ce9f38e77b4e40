"""The time of a denoiser call: what is in the record, for which cells, and what a failure stops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.plan import make_plan
from qbench.quant import integer
from qbench.records import Record, read_record
from qbench.stages import latency, timing
from qbench.stages.latency import batch_size
from qbench.suite import load_suite

MicroSuite = Callable[..., Path]
Qbench = Callable[..., Any]
ASKED = {"latency": True, "bits": ["W8A8", "W4A8"], "metrics": ["micro-distance"]}


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SECONDS", 0.0)


def records(workplace: Path) -> dict[str, Record]:
    return {path.stem: read_record(path) for path in (workplace / "results" / "micro" / "records").glob("*.json")}


def test_a_record_holds_what_was_measured(qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
    assert qbench("run", micro_suite(**ASKED)).code == 0
    found = records(workplace)
    full, eight, four = (
        found[f"micro.{name}.s0"].latency for name in ("full-precision.W32A32", "round.W8A8", "round.W4A8")
    )
    assert full is not None
    assert eight is not None
    assert four is not None
    assert (full.device, full.dtype, full.compiled, full.threads, full.step_index) == ("cpu", "float32", False, 1, 3)
    assert full.instructions
    assert full.batch == 16
    assert full.rounds == timing.FEWEST_ROUNDS
    assert full.packed_mb == full.resident_mb == eight.resident_mb  # simulated weights lie in memory as floats
    assert four.packed_mb < eight.packed_mb
    assert full.quantized is None
    assert four.quantized is not None
    assert four.quantized.peak_mb > 0
    assert four.int8 is None
    assert four.int8_reason is None
    if integer.unavailable(latency_device()) is None:
        assert eight.int8 is not None
        assert eight.int8.macs == 1.0
        assert eight.int8.difference < 0.1
        assert eight.int8.seconds > 0


def latency_device() -> Any:
    import torch

    return torch.device("cpu")


def test_without_kernels_the_reason_stands_in_the_record(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(integer, "unavailable", lambda device: "no luck on this chip")
    assert qbench("run", micro_suite(**ASKED)).code == 0
    found = records(workplace)["micro.round.W8A8.s0"].latency
    assert found is not None
    assert (found.int8, found.int8_reason) == (None, "no luck on this chip")
    text = (workplace / "results" / "micro" / "costs.md").read_text(encoding="utf-8")
    assert "round W8A8 on micro, seed 0: no luck on this chip" in text
    assert " times" not in text


def test_a_failure_leaves_the_cell_complete(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> Any:
        raise RuntimeError("the clock stands | still")

    monkeypatch.setattr(timing, "in_turns", fail)
    assert qbench("run", micro_suite(**ASKED)).code == 0
    for record in records(workplace).values():
        assert (record.status, record.reason, record.latency) == ("complete", None, None)
        assert record.latency_failure == "latency: RuntimeError: the clock stands | still"
    text = (workplace / "results" / "micro" / "costs.md").read_text(encoding="utf-8")
    assert r"round W8A8 on micro, seed 0: latency: RuntimeError: the clock stands \| still" in text


def test_only_the_first_seed_is_measured(micro_suite: MicroSuite):
    plan = make_plan(load_suite(micro_suite(**ASKED, seeds=[3, 1])))
    assert [(each.cell.seed, each.latency is not None) for each in plan.cells] == [(3, True)] * 3 + [(1, False)] * 3


@pytest.mark.parametrize(("inner", "outer"), [(True, False), (False, True)])
def test_a_cell_of_two_suites_is_measured_if_one_of_them_asks(micro_suite: MicroSuite, inner: bool, outer: bool):
    micro_suite("inner.yaml", name="inner", latency=inner)
    plan = make_plan(load_suite(micro_suite(latency=outer, include=["inner.yaml"])))
    assert [each.latency is not None for each in plan.cells] == [True] * 3


def test_it_is_no_part_of_what_decides_a_cell(micro_suite: MicroSuite, qbench: Qbench, workplace: Path):
    path = micro_suite(bits=["W4A8"])
    without, with_latency = (make_plan(load_suite(path, given)) for given in ({}, {"latency": True}))
    assert [each.cell.digest for each in without.cells] == [each.cell.digest for each in with_latency.cells]
    assert without.stages.keys() < with_latency.stages.keys()
    assert {stage.kind for digest, stage in with_latency.stages.items() if digest not in without.stages} == {"latency"}
    assert qbench("run", path).code == 0
    raw = json.loads((workplace / "results" / "micro" / "records" / "micro.round.W4A8.s0.json").read_text())
    assert (raw["schema_version"], "latency" in raw) == (2, False)
    assert qbench("check", path, "--set", "latency=true").code == 0
    answer = qbench("run", path, "--set", "latency=true")
    assert answer.err.splitlines()[0].startswith("2 of ")
    assert records(workplace)["micro.round.W4A8.s0"].schema_version == 3


@pytest.mark.parametrize(
    ("key", "value", "words"), [("latencies", True, "did you mean 'latency'"), ("latency", "maybe", "boolean")]
)
def test_a_slip_in_the_suite_is_told(micro_suite: MicroSuite, qbench: Qbench, key: str, value: Any, words: str):
    answer = qbench("plan", micro_suite(**{key: value}))
    assert answer.code == 1
    assert words in answer.err
    assert "Traceback" not in answer.err


def test_images_made_elsewhere_have_none(micro_suite: MicroSuite, workplace: Path):
    import numpy as np
    from PIL import Image

    (workplace / "images").mkdir()
    for index in range(12):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(workplace / "images" / f"{index:02d}.png")
    method = {"name": "external", "settings": {"images": "images", "bits": "W4A8"}}
    plan = make_plan(load_suite(micro_suite(**ASKED | {"methods": [method], "bits": ["W4A8"]})))
    assert [each.latency is not None for each in plan.cells] == [True, False]


@pytest.mark.parametrize(
    ("macs", "device", "sampling", "batch"),
    [
        (1, "cpu", 125, 16),
        (1, "cpu", 3, 2),
        (1_000_000_000, "cpu", 125, 4),
        (10**13, "cpu", 125, 1),
        (6_000_000_000, "cuda", 125, 64),
        (10**13, "cuda", 125, 1),
        (1, "xpu", 7, 4),
    ],
)
def test_a_call_is_a_power_of_two_that_does_not_take_long(macs: int, device: str, sampling: int, batch: int):
    assert batch_size(macs, device, sampling) == batch


def test_an_output_that_is_not_finite_is_refused():
    import torch

    with pytest.raises(latency.StageError, match=r"not finite \(full precision\)"):
        latency._finite("full_precision", torch.tensor([1.0, float("nan")]))
