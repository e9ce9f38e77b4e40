"""What enters a digest, and what does not."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qbench.cell import Cell
from qbench.identity import digest
from qbench.plan import CellPlan, make_plan
from qbench.plugin import Plugin
from qbench.stages.stage import Stage
from qbench.suite import Suite, load_suite

BITS = "W4A8"


@pytest.fixture
def cell(micro_suite: Callable[..., Path]) -> Callable[..., Cell]:
    """Return a function that gives the one quantized cell of a suite with some changes."""

    def make(**changes: Any) -> Cell:
        suite = load_suite(micro_suite(**({"bits": [BITS], "boundary_bits": 8} | changes)))
        return suite.cells[-1]

    return make


def planned(cell: Cell) -> CellPlan:
    return make_plan(Suite("one", "One cell", Path("one.yaml"), (cell,), {cell.key: 0})).cells[0]


def digests(cell: Cell) -> dict[str, set[str]]:
    """Return the digests of the stages that make a cell's own figures, by kind."""
    found: dict[str, set[str]] = {}
    for stage in planned(cell).own_stages.values():
        found.setdefault(stage.kind, set()).add(stage.digest)
    return found


def with_changed(plugin: Plugin, **attributes: Any) -> Plugin:
    """Return the same plugin as a class with other attributes would make it."""
    return type("Changed", (type(plugin),), attributes)(plugin.entry, plugin.settings)


def with_package(plugin: Plugin, package: str) -> Plugin:
    return type(plugin)(replace(plugin.entry, package=package), plugin.settings)


def workload_changes() -> dict[str, Callable[[Cell], Cell]]:
    def change(make: Callable[[Any], Any]) -> Callable[[Cell], Cell]:
        return lambda cell: replace(cell, workload=make(cell.workload))

    return {
        "workload revision": change(lambda each: with_changed(each, revision=2)),
        "workload package": change(lambda each: with_package(each, "another")),
        "workload name": change(lambda each: type(each)(replace(each.entry, name="other"), each.settings)),
        "workload weights": change(lambda each: with_changed(each, weights=lambda self: {"micro": "0" * 64})),
        "workload schedule": change(
            lambda each: with_changed(each, schedule=each.schedule.model_copy(update={"beta_end": 0.03}))
        ),
    }


def method_changes() -> dict[str, Callable[[Cell], Cell]]:
    def change(make: Callable[[Any], Any]) -> Callable[[Cell], Cell]:
        return lambda cell: replace(cell, method=make(cell.method))

    return {
        "method revision": change(lambda each: with_changed(each, revision=2)),
        "method package": change(lambda each: with_package(each, "another")),
        "method name": change(lambda each: type(each)(replace(each.entry, name="other"), each.settings)),
    }


FILE_CHANGES: dict[str, Mapping[str, Any]] = {
    "workload settings": {"workloads": [{"name": "micro", "settings": {"gain": 2.0}}]},
    "sampler steps": {"workloads": [{"name": "micro", "sampler": {"steps": 5}}]},
    "steps of the suite": {"steps": 5},
    "sampler eta": {"workloads": [{"name": "micro", "sampler": {"eta": 1.0}}]},
    "method settings": {"methods": [{"name": "round", "settings": {"share": 0.5}}]},
    "nested method settings": {"methods": [{"name": "round", "settings": {"calibration": {"per_step": 9}}}]},
    "preset": {"methods": [{"name": "round", "preset": "tight"}]},
    "method": {"methods": ["other-round"]},
    "weight bits": {"bits": ["W5A8"]},
    "activation bits": {"bits": ["W4A7"]},
    "boundary bits": {"boundary_bits": 7},
    "no boundary bits": {"boundary_bits": None},
    "seed": {"seeds": [1]},
    "samples": {"samples": 13},
}


@pytest.mark.parametrize("changes", FILE_CHANGES.values(), ids=FILE_CHANGES)
def test_whatever_decides_the_figures_changes_the_digest(cell: Callable[..., Cell], changes: Mapping[str, Any]):
    before, after = cell(), cell(**changes)
    assert after.digest != before.digest
    assert not digests(before)["score"] & digests(after)["score"]


OF_FULL_PRECISION = ("workload settings", "sampler steps", "steps of the suite", "sampler eta", "seed", "samples")


@pytest.mark.parametrize("what", FILE_CHANGES)
def test_full_precision_knows_what_decides_its_images_and_nothing_else(cell: Callable[..., Cell], what: str):
    before, after = cell().full_precision, cell(**FILE_CHANGES[what]).full_precision
    other = not any(digests(before)[kind] & digests(after)[kind] for kind in ("sample", "features", "score"))
    assert other == (after.digest != before.digest) == (what in OF_FULL_PRECISION)


@pytest.mark.parametrize("change", [*workload_changes().values()], ids=[*workload_changes()])
def test_whatever_identifies_the_workload_changes_every_digest_of_images(
    cell: Callable[..., Cell], change: Callable[[Cell], Cell]
):
    before = cell()
    after = change(before)
    assert after.digest != before.digest
    assert after.full_precision.digest != before.full_precision.digest
    for kind in ("trajectory", "weights", "activations", "sample", "features", "score", "profile", "curve"):
        assert not digests(before)[kind] & digests(after)[kind], kind


@pytest.mark.parametrize("change", [*method_changes().values()], ids=[*method_changes()])
def test_whatever_identifies_the_method_changes_what_it_makes_and_nothing_else(
    cell: Callable[..., Cell], change: Callable[[Cell], Cell]
):
    before = cell()
    after = change(before)
    assert after.digest != before.digest
    assert after.full_precision.digest == before.full_precision.digest
    assert digests(before)["trajectory"] == digests(after)["trajectory"]
    for kind in ("weights", "activations", "sample", "features", "score", "profile", "curve"):
        assert not digests(before)[kind] & digests(after)[kind], kind


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda metric: with_changed(metric, revision=2), id="revision"),
        pytest.param(lambda metric: with_package(metric, "another"), id="package"),
        pytest.param(
            lambda metric: type(metric)(metric.entry, metric.settings.model_copy(update={"power": 3})), id="settings"
        ),
    ],
)
def test_whatever_identifies_a_metric_changes_its_score_alone(cell: Callable[..., Cell], change: Callable[[Any], Any]):
    before = cell(metrics=["micro-contrast"])
    after = replace(before, metrics=tuple(change(metric) for metric in before.metrics))
    found, changed = digests(before), digests(after)
    assert not found.pop("score") & changed.pop("score")
    assert found == changed
    assert after.digest == before.digest


@pytest.mark.parametrize(
    ("owner", "attributes"),
    [
        ("MicroPool", {"revision": 2}),
        ("MicroPool", {"weights": lambda self: {"micro-pool": "0" * 64}}),
    ],
    ids=["revision", "weights"],
)
def test_whatever_identifies_an_extractor_changes_features_and_scores(
    cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch, owner: str, attributes: dict[str, Any]
):
    import micro_plugins

    before = digests(cell(metrics=["micro-distance"]))
    for name, value in attributes.items():
        monkeypatch.setattr(getattr(micro_plugins, owner), name, value)
    after = digests(cell(metrics=["micro-distance"]))
    for kind in ("features", "reference", "score"):
        assert not before[kind] & after[kind], kind
    assert before["sample"] == after["sample"]


def test_another_reference_changes_the_score(cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch):
    import micro_plugins

    before = digests(cell(metrics=["micro-distance"]))
    reference = micro_plugins.Micro.reference
    monkeypatch.setattr(
        micro_plugins.Micro, "reference", lambda self, *given: replace(reference(self, *given), digest="0" * 64)
    )
    after = digests(cell(metrics=["micro-distance"]))
    assert not before["reference"] & after["reference"]
    assert not before["score"] & after["score"]
    assert before["features"] == after["features"]


def test_a_stage_revision_changes_it_and_what_depends_on_it(cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch):
    from qbench.stages.sample import Sample

    before = digests(cell())
    monkeypatch.setattr(Sample, "revision", Sample.revision + 1)
    after = digests(cell())
    for kind in ("sample", "features", "score"):
        assert not before[kind] & after[kind], kind
    for kind in ("weights", "activations", "trajectory", "profile", "curve"):
        assert before[kind] == after[kind], kind


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "Another title"},
        {"name": "another"},
        {"workloads": [{"name": "micro", "as": "another"}]},
        {"methods": [{"name": "round", "as": "another"}]},
        {"methods": ["linear", "round"]},
        {"bits": ["W4A32", BITS]},
        {"metrics": ["mse-to-fp", "micro-distance"]},
        {"bits": ["W4A32", BITS], "exclude": [{"bits": "W4A32"}]},
        {"methods": [{"name": "round", "settings": {"share": 1.0, "calibration": {"steps": 2}}}]},
        {"workloads": [{"name": "micro", "sampler": {"steps": 4, "eta": 0}}]},
    ],
    ids=["title", "name", "workload label", "method label", "more methods", "more bits", "order of metrics",
         "exclude", "defaults written out", "sampler written out"],
)  # fmt: skip
def test_what_decides_nothing_is_not_in_it(cell: Callable[..., Cell], changes: dict[str, Any]):
    before, after = cell(), cell(**changes)
    assert after.digest == before.digest
    assert digests(after) == digests(before)


def test_paths_enter_nothing(micro_suite: Callable[..., Path], workplace: Path):
    (workplace / "elsewhere").mkdir()
    first, second = load_suite(micro_suite()), load_suite(micro_suite("elsewhere/other-name.yaml"))
    assert [cell.digest for cell in first.cells] == [cell.digest for cell in second.cells]
    assert list(make_plan(first).stages) == list(make_plan(second).stages)


def test_digests_are_the_same_everywhere_and_for_ever():
    """A golden value: whoever changes it throws away every cache there is, and should know."""
    golden = "a54a48397d79e076654b196caa2c345ab411dc037feeb4122c9150fc7b9e8dc6"
    assert digest({"a": [1, 2.5, None, True, "ü"]}) == golden


def test_the_description_of_a_cell_is_readable(cell: Callable[..., Cell]):
    description = cell().describe()
    assert digest(description) == cell().digest
    assert {key: description[key] for key in ("bits", "boundary_bits", "seed", "samples")} == {
        "bits": BITS,
        "boundary_bits": 8,
        "seed": 0,
        "samples": 12,
    }
    assert description["method"]["settings"] == {
        "calibration": {"kind": "uniform-steps", "steps": 2, "per_step": 8},
        "share": 1.0,
    }


def test_device_batch_size_store_and_results_enter_nothing(
    qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path
):
    from qbench.execution.listener import Listener
    from qbench.execution.run import run_suite
    from qbench.stages.stage import Runtime
    from qbench.store import Store, entries

    suite = load_suite(micro_suite())
    found = []
    for store, results, runtime in (("a", "x", Runtime("cpu")), ("b", "y", Runtime("auto", batch_size=5))):
        opened = Store(workplace / store)
        outcome = run_suite(suite, opened, workplace / results, runtime, Listener())
        found.append(
            ([record.digest for record in outcome.records], [(each.kind, each.digest) for each in entries(opened)])
        )
    assert found[0] == found[1]


def test_a_written_record_gives_the_digest_of_the_plan(
    qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path
):
    path = micro_suite(boundary_bits=8, seeds=[0, 1])
    assert qbench("run", path).code == 0
    for planned_cell in load_suite(path).cells:
        raw = json.loads((workplace / "results" / "micro" / "records" / f"{planned_cell.id}.json").read_text())
        assert digest(raw["description"]) == raw["digest"] == planned_cell.digest


def test_a_manifest_gives_the_digest_of_its_stage(
    qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path
):
    path = micro_suite()
    assert qbench("run", path).code == 0
    stages: dict[str, Stage] = make_plan(load_suite(path)).stages
    manifests = [json.loads(each.read_text()) for each in (workplace / "store").rglob("manifest.json")]
    assert {digest(manifest["description"]) for manifest in manifests} == set(stages)
    assert all(stages[manifest["digest"]].description == manifest["description"] for manifest in manifests)
