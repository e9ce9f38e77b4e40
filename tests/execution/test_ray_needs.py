"""What stages need and where they go, without any cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.execution.ray_needs import Needs, Node, choose, known_peaks, needs_of
from qbench.plan import make_plan
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.suite import load_suite

GB = 1e9
HEAD = Node("a", "head", cpus=8, gpus=0, memory=16 * GB)
WITH_GPUS = Node("b", "gpus", cpus=16, gpus=2, memory=64 * GB)
NOWHERE: frozenset[str] = frozenset()


@pytest.fixture
def stages(micro_suite: Callable[..., Path]) -> dict[str, Stage]:
    """One stage of each kind."""
    return {stage.kind: stage for stage in make_plan(load_suite(micro_suite())).stages.values()}


class TestNeeds:
    def test_on_the_processor_it_is_its_threads(self, stages: dict[str, Stage]):
        for stage in stages.values():
            assert needs_of(stage, 3, False, {}, [HEAD]) == Needs(3, 0, 0)

    def test_an_accelerator_is_asked_for_by_what_computes_on_it(self, stages: dict[str, Stage]):
        gpus = {kind: needs_of(stage, 1, True, {}, [WITH_GPUS]).gpus for kind, stage in stages.items()}
        assert {kind for kind, count in gpus.items() if count == 0} == {"score"}
        assert {count for kind, count in gpus.items() if kind != "score"} == {1}

    def test_memory_is_that_of_earlier_stages_of_the_same_kind_and_group(self, stages: dict[str, Stage]):
        sample = stages["sample"]
        peaks = {("sample", sample.group): 2 * GB, ("sample", "another"): 9 * GB, ("score", sample.group): 9 * GB}
        assert needs_of(sample, 1, False, peaks, [HEAD]).memory == 2 * GB
        assert needs_of(stages["weights"], 1, False, peaks, [HEAD]).memory == 0

    @pytest.mark.parametrize(("on_accelerator", "most"), [(False, 64), (True, 64)])
    def test_no_stage_asks_for_more_than_a_node_that_can_compute_it_has(
        self, stages: dict[str, Stage], on_accelerator: bool, most: float
    ):
        peaks = {("sample", stages["sample"].group): 1000 * GB}
        needs = needs_of(stages["sample"], 1, on_accelerator, peaks, [HEAD, WITH_GPUS])
        assert needs.memory == pytest.approx(0.9 * most * GB)
        assert WITH_GPUS.holds(needs)

    def test_the_least_peak_counts_because_processes_remember_larger_stages(
        self, stages: dict[str, Stage], put_artefact: Callable[..., None], workplace: Path
    ):
        store, sample = Store(workplace / "store"), stages["sample"]
        put_artefact(store, sample, memory=700.0)
        assert known_peaks(store) == {("sample", sample.group): 700e6}
        put_artefact(store, stages["curve"], memory=900.0)
        (folder,) = (store.root / "artefacts" / "curve").iterdir()
        folder.joinpath("manifest.json").write_text("{")
        assert known_peaks(store) == {("sample", sample.group): 700e6}


class TestChoice:
    def test_the_node_with_the_most_free_processors(self):
        other = Node("c", "other", cpus=8, gpus=0, memory=16 * GB)
        assert choose(Needs(2), [HEAD, other], {"a": Needs(2)}, NOWHERE) == other
        assert choose(Needs(2), [HEAD, other], {"a": Needs(2), "c": Needs(4)}, NOWHERE) == HEAD

    def test_what_needs_no_accelerator_leaves_them_free(self):
        assert choose(Needs(1), [WITH_GPUS, HEAD], {}, NOWHERE) == HEAD
        assert choose(Needs(1), [WITH_GPUS, HEAD], {"a": Needs(8)}, NOWHERE) == WITH_GPUS
        assert choose(Needs(1, 1), [WITH_GPUS, HEAD], {}, NOWHERE) == WITH_GPUS

    @pytest.mark.parametrize("used", [Needs(cpus=8), Needs(memory=15 * GB)])
    def test_nothing_is_given_to_a_node_that_is_full(self, used: Needs):
        assert choose(Needs(1, 0, 2 * GB), [HEAD], {"a": used}, NOWHERE) is None

    def test_no_third_stage_for_two_accelerators(self):
        assert choose(Needs(1, 1), [WITH_GPUS], {"b": Needs(2, 1)}, NOWHERE) == WITH_GPUS
        assert choose(Needs(1, 1), [WITH_GPUS], {"b": Needs(2, 2)}, NOWHERE) is None

    def test_after_a_death_it_goes_elsewhere_and_waits_for_that(self):
        other = Node("c", "other", cpus=8, gpus=0, memory=16 * GB)
        assert choose(Needs(1), [HEAD, other], {"c": Needs(7)}, frozenset("a")) == other
        assert choose(Needs(1), [HEAD, other], {"c": Needs(8)}, frozenset("a")) is None

    def test_after_a_death_with_nowhere_else_to_go_it_is_the_same_node(self):
        small = Node("c", "small", cpus=1, gpus=0, memory=16 * GB)
        assert choose(Needs(2), [HEAD, small], {}, frozenset("a")) == HEAD

    def test_places(self):
        assert [HEAD.places(Needs(3)), WITH_GPUS.places(Needs(1, 1)), WITH_GPUS.places(Needs(16, 1))] == [2, 2, 1]
