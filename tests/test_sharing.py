"""What cells have in common is planned and computed once. Counts come from the suite's file, not from the planner."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import yaml

from qbench.metrics.inception_extractor import Inception
from qbench.plan import Plan, make_plan
from qbench.suite import find_suite, load_suite
from qbench.workload import ImageSet
from qbench.workloads.assets import Asset
from qbench.workloads.paper import DDIMCIFAR10

SHARD = 250


def written(name: str) -> dict[str, Any]:
    """Return a suite as its file has it."""
    return dict(yaml.safe_load(find_suite(name).read_text(encoding="utf-8")))


def expected_counts(workloads: int, methods: int, bits: list[str], samples: int, trajectories: int) -> Counter[str]:
    """Return how many stages there must be for every workload, method and bits, one seed."""
    weight_bits = {each.partition("A")[0] for each in bits}
    quantized = workloads * methods * len(bits)
    with_activations = sum(not each.endswith("A32") for each in bits)
    return Counter(
        reference=workloads,
        trajectory=workloads * trajectories,
        weights=workloads * methods * len(weight_bits),
        activations=workloads * methods * with_activations,
        sample=(workloads + quantized) * ceil(samples / SHARD),
        features=(workloads + quantized) * ceil(samples / SHARD),
        profile=workloads + quantized,
        curve=quantized,
    )


def counts(plan: Plan) -> Counter[str]:
    found = Counter(stage.kind for stage in plan.stages.values())
    del found["score"]  # one for each figure: nothing to share
    found.pop("latency", None)  # one for each cell, likewise
    return found


def users(plan: Plan, kind: str) -> set[frozenset[str]]:
    """Return the labels that share a stage, for each stage of a kind."""
    found: dict[str, set[str]] = {}
    for cell in plan.cells:
        for digest, stage in cell.own_stages.items():
            if stage.kind == kind:
                found.setdefault(digest, set()).add(cell.cell.label)
    return {frozenset(labels) for labels in found.values()}


@pytest.fixture
def real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the real table needs, as far as a plan asks for it: digests."""
    digests: Mapping[str, str] = {"model": "0" * 64}
    for name, value in (("weights", lambda self: digests), ("needs_conversion", False), ("has_captions", False)):
        monkeypatch.setattr(DDIMCIFAR10, name, value)
    images = ImageSet("CIFAR-10", 50000, "1" * 64, lambda indices: pytest.fail("a plan reads no images"))
    monkeypatch.setattr(DDIMCIFAR10, "reference", lambda self, *_: images)
    monkeypatch.setattr(DDIMCIFAR10, "image_shape", (3, 32, 32))
    monkeypatch.setattr(Asset, "require", lambda self, *_: None)
    monkeypatch.setattr(Inception, "_digest", "2" * 64)


class TestTable1:
    def test_the_stand_in_plans_each_thing_once(self) -> None:
        suite = written("paper_table1")
        plan = make_plan(load_suite(find_suite("paper_table1"), standin=True))
        workloads, methods = len(suite["workloads"]), len(suite["methods"])
        assert counts(plan) == expected_counts(
            workloads, methods, suite["bits"], suite["standin"]["samples"], trajectories=3
        )

    @pytest.mark.usefixtures("real_files")
    def test_the_real_one_plans_each_thing_once(self) -> None:
        suite = written("paper_table1")
        plan = make_plan(load_suite(find_suite("paper_table1")))
        expected = expected_counts(
            len(suite["workloads"]), len(suite["methods"]), suite["bits"], suite["samples"], trajectories=2
        )
        assert counts(plan) == expected
        assert expected["sample"] == 17 * 200
        assert users(plan, "trajectory") == {frozenset({"linear", "squant", "qdiffusion"}), frozenset({"ptq4dm"})}

    def test_methods_that_ask_for_the_same_data_share_it(self) -> None:
        plan = make_plan(load_suite(find_suite("paper_table1"), standin=True))
        assert users(plan, "trajectory") == {
            frozenset({"linear-fast", "squant-fast"}),
            frozenset({"ptq4dm-fast"}),
            frozenset({"qdiffusion-fast"}),
        }
        assert len(users(plan, "reference")) == 1


def computed(err: str) -> Counter[str]:
    """Return how often each stage was computed, by what a log says of it."""
    return Counter(re.findall(r"^\[\d+/\d+\] (\w+: .*): \d", err, flags=re.MULTILINE))


def test_a_run_computes_each_thing_once(qbench: Callable[..., Any], micro_suite: Callable[..., Path]) -> None:
    bits = ["W8A32", "W4A32", "W8A8", "W4A8"]
    suite = micro_suite(methods=["round", "other-round"], bits=bits, samples=300)
    found = computed(qbench("run", suite).err)
    by_kind = Counter(line.partition(":")[0] for line in found.elements())
    expected = expected_counts(1, 2, bits, 300, trajectories=1)
    del by_kind["score"]
    assert by_kind == expected
    assert not computed(qbench("run", suite).err)
