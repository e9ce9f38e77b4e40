from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qbench.estimate import Rates
from qbench.plan import Plan, make_plan
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.suite import load_suite

Put = Callable[..., None]


@pytest.fixture
def plan(micro_suite: Callable[..., Path]) -> Plan:
    return make_plan(load_suite(micro_suite(seeds=[0, 1])))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def samples(plan: Plan) -> list[Stage]:
    """Return the shards: full precision, W4A32 and W4A8, for one seed and then for the other."""
    return [stage for stage in plan.stages.values() if stage.kind == "sample"]


def test_an_empty_store_knows_nothing(plan: Plan, store: Store):
    rates = Rates.of_store(store)
    assert all(rates.seconds(stage) is None for stage in plan.stages.values())
    cost = rates.estimate(plan.stages.values())
    assert set(cost.unknown_kinds) == {stage.kind for stage in plan.stages.values()}
    assert cost.peak_memory_mb is None


def test_nothing_to_do_costs_nothing(store: Store):
    cost = Rates.of_store(store).estimate([])
    assert (cost.seconds, cost.unknown_kinds) == (0, ())


def test_a_stage_takes_as_long_as_those_of_its_group_for_each_unit_of_work(
    micro_suite: Callable[..., Path], plan: Plan, store: Store, put_artefact: Put
):
    full, plain, quantized = samples(plan)[:3]
    put_artefact(store, full, seconds=2.0)
    put_artefact(store, quantized, seconds=30.0)
    rates = Rates.of_store(store)
    assert rates.seconds(plain) == pytest.approx(2.0)
    assert rates.seconds(samples(plan)[5]) == pytest.approx(30.0)
    larger = samples(make_plan(load_suite(micro_suite(samples=24, steps=8))))[0]
    assert rates.seconds(larger) == pytest.approx(2.0 * 2 * 2)


def test_another_group_of_its_kind_is_better_than_nothing(plan: Plan, store: Store, put_artefact: Put):
    full, _, quantized = samples(plan)[:3]
    put_artefact(store, full, seconds=2.0)
    assert Rates.of_store(store).seconds(quantized) == pytest.approx(2.0)


def test_another_methods_weights_tell_nothing(micro_suite: Callable[..., Path], store: Store, put_artefact: Put):
    plan = make_plan(load_suite(micro_suite(methods=["round", {"name": "round", "preset": "tight"}])))
    first, second = [stage for stage in plan.stages.values() if stage.kind == "weights"]
    put_artefact(store, first, seconds=2.0)
    rates = Rates.of_store(store)
    assert rates.seconds(first) == pytest.approx(2.0)
    assert rates.seconds(second) is None


def test_one_slow_run_among_several_does_not_decide(plan: Plan, store: Store, put_artefact: Put):
    shards = [each for index, each in enumerate(samples(plan)) if index % 3 != 2]
    for stage, seconds in zip(shards, (1.0, 100.0, 1.0), strict=False):
        put_artefact(store, stage, seconds)
    assert Rates.of_store(store).seconds(shards[3]) == pytest.approx(1.0)


def test_of_two_the_slower_one_does_not_decide_which_may_have_paid_for_imports(
    plan: Plan, store: Store, put_artefact: Put
):
    full, plain = [each for index, each in enumerate(samples(plan)) if index % 3 != 2][:2]
    put_artefact(store, full, seconds=30.0)
    put_artefact(store, plain, seconds=1.0)
    assert Rates.of_store(store).seconds(samples(plan)[3]) == pytest.approx(1.0)


def test_an_estimate_adds_up_and_takes_the_largest_peak(plan: Plan, store: Store, put_artefact: Put):
    seconds: Mapping[str, float] = {"sample": 3.0, "weights": 5.0}
    chosen = [next(stage for stage in plan.stages.values() if stage.kind == kind) for kind in seconds]
    for stage in chosen:
        put_artefact(store, stage, seconds[stage.kind], memory=10 * seconds[stage.kind])
    cost = Rates.of_store(store).estimate(chosen)
    assert (cost.seconds, cost.peak_memory_mb, cost.unknown_kinds) == (pytest.approx(8.0), 50.0, ())


def test_kinds_that_were_never_computed_are_named(plan: Plan, store: Store, put_artefact: Put):
    chosen = {stage.kind: stage for stage in plan.stages.values()}
    put_artefact(store, chosen["sample"], seconds=3.0)
    cost = Rates.of_store(store).estimate([chosen["sample"], chosen["score"], chosen["profile"]])
    assert cost.unknown_kinds == ("profile", "score")


def test_a_run_learns_while_it_works(plan: Plan):
    rates = Rates()
    rates.observe(samples(plan)[0], 4.0)
    assert rates.seconds(samples(plan)[3]) == pytest.approx(4.0)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "null", '{"kind": "sample"}'])
def test_what_is_no_artefact_is_passed_over(plan: Plan, store: Store, put_artefact: Put, content: str):
    first = samples(plan)[0]
    put_artefact(store, first, seconds=2.0)
    broken = store.folder("sample", "0" * 64)
    broken.mkdir()
    (broken / "manifest.json").write_text(content)
    (store.root / "artefacts" / "sample" / "stray-file").write_text("")
    assert Rates.of_store(store).seconds(samples(plan)[3]) == pytest.approx(2.0)


def test_after_the_first_cell_it_is_within_a_factor_of_two(
    qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path
):
    """One of three suites that differ in their seeds has to be: the machine may be busy now and idle then."""
    ratios = []
    for attempt in range(3):
        suite = micro_suite(samples=500, steps=20, seeds=[10 * attempt, 10 * attempt + 1])
        first = qbench("run", suite, "--only", f"seed={10 * attempt}", "--only", "bits=W4A8", "--store", f"s{attempt}")
        assert first.code == 0
        store = Store(workplace / f"s{attempt}")
        missing = make_plan(load_suite(suite)).missing(store)
        expected = Rates.of_store(store).estimate(missing.values())
        assert expected.unknown_kinds == ()
        planned = qbench("plan", suite, "--store", f"s{attempt}", "--json").json["estimate"]
        assert planned["seconds"] == pytest.approx(expected.seconds)
        assert qbench("run", suite, "--store", f"s{attempt}").code == 0
        took = sum(store.manifest(stage.kind, stage.digest).seconds for stage in missing.values())
        ratios.append(expected.seconds / took)
        if 0.5 < ratios[-1] < 2:
            return
    raise AssertionError(f"estimated over measured: {ratios}")
