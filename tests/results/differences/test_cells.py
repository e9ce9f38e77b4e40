from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qbench.identity import digest
from qbench.records import Record
from qbench.results.differences.cells import FigureChange, cell_difference
from qbench.results.differences.changes import ABSENT, Change
from qbench.store import Manifest, Store

MakeRecord = Callable[..., Record]
FULL = {"label": "full-precision", "bits": "W32A32", "position": 0}


def with_figure(make_record: MakeRecord, value: float, without: Any = (), **changes: Any) -> Record:
    figure = {"value": value, "samples": 40, "without": list(without)}
    return make_record(figures={"distance": figure}, samples=40, **changes)


def the_figure(first: Record, second: Record, **options: Any) -> FigureChange:
    (found,) = cell_difference(first, second, **options).figures
    return found


def stage(kind: str, name: str) -> dict[str, Any]:
    return {"stage": kind, "digest": digest({"made": name}), "seconds": 1.0, "peak_memory_mb": 1.0}


def put(store: Store, kind: str, name: str, content: Any) -> None:
    """Put an artefact with one array into a store."""
    made = digest({"made": name})
    with store.claim(made), store.pending(made) as folder:
        np.save(folder / "x.npy", content)
        files = {"x.npy": digest({"content": (folder / "x.npy").read_bytes().hex()})}
        store.publish(folder, Manifest(kind, made, "", {"made": name}, files, 1.0, 1.0, 1.0))


class TestSettings:
    def test_a_cell_is_the_same_as_itself(self, make_record: MakeRecord):
        found = cell_difference(make_record(), make_record())
        assert found.is_same
        assert {each.verdict for each in found.figures} == {"same"}

    def test_they_are_told_by_path(self, make_record: MakeRecord):
        found = cell_difference(make_record(**FULL), make_record())
        assert not found.is_same
        assert found.settings == (
            Change("method", None, {"name": "round"}),
            Change("bits", "W32A32", "W4A8"),
        )

    def test_labels_and_titles_are_no_settings(self, make_record: MakeRecord):
        first = make_record()
        second = first.model_copy(
            update={"label": "other", "suite": first.suite.model_copy(update={"title": "Another"})}
        )
        assert cell_difference(first, second).is_same

    def test_environment_seconds_and_git_alone_do_not_make_them_differ(self, make_record: MakeRecord):
        stages = [{"stage": "sample", "digest": "0" * 64, "seconds": 99.0, "peak_memory_mb": 1.0}]
        found = cell_difference(
            make_record(), make_record(environment={"device": "cuda"}, stages=stages, git={"commit": "f"})
        )
        assert found.is_same
        assert found.environment == (
            Change("device", "cpu", "cuda"),
            Change("threads", 1, ABSENT),
            Change("git", None, {"commit": "f"}),
            Change("seconds.sample", 2.5, 99.0),
        )

    def test_another_protocol_makes_figures_incomparable(self, make_record: MakeRecord):
        raw = make_record().model_dump(mode="json")
        raw["metrics"]["distance"]["description"] = {"metric": "m", "extractor": {"weights": {"net": "b"}}}
        found = cell_difference(make_record(), Record.model_validate(raw))
        assert found.protocol == (Change("distance.description.extractor", ABSENT, {"weights": {"net": "b"}}),)
        assert {each.metric: each.verdict for each in found.figures} == {
            "distance": "of another protocol",
            "mse-to-fp": "same",
        }
        assert not found.is_same

    def test_what_became_of_them_counts(self, make_record: MakeRecord):
        failed = make_record(status="failed", reason="no", failures={"distance": "no"}, figures={}, profile=None)
        found = cell_difference(make_record(), failed)
        assert Change("status", "complete", "failed") in found.outcome
        assert Change("failures.distance", ABSENT, "no") in found.outcome
        assert Change("size_mb", 0.5, ABSENT) in found.outcome
        assert {each.verdict for each in found.figures} == {"on one side only"}


class TestFigures:
    def test_one_within_the_paired_interval_does_not_make_them_differ(self, make_record: MakeRecord):
        noise = np.linspace(-1, 1, 20)
        found = the_figure(with_figure(make_record, 2.0, 2.0 + noise), with_figure(make_record, 2.1, 2.1 - noise))
        assert found.verdict == "within its interval"
        assert not found.is_different

    def test_one_beyond_it_does(self, make_record: MakeRecord):
        """What all rows have in common cancels: each one's own interval is a hundred times wider."""
        common = np.linspace(-1, 1, 20)
        noise = np.resize([-0.001, 0.001], 20)
        found = the_figure(
            with_figure(make_record, 2.0, 2.0 + common), with_figure(make_record, 2.1, 2.1 + common + noise)
        )
        assert found.verdict == "differs"
        assert found.difference is not None
        assert found.difference.delta == pytest.approx(0.1)
        assert found.difference.low is not None
        assert 0.05 < found.difference.low < 0.1

    def test_other_noise_is_not_paired(self, make_record: MakeRecord):
        common = np.linspace(-1, 1, 20)
        first, second = (
            with_figure(make_record, value, value + common, seed=seed) for value, seed in ((2, 0), (2.1, 1))
        )
        assert the_figure(first, second).verdict == "within its interval"

    def test_one_without_an_interval_differs_wherever_it_is_not_the_same(self, make_record: MakeRecord):
        first, second = with_figure(make_record, 2.0), with_figure(make_record, 2.001)
        assert the_figure(first, second).verdict == "differs"
        assert the_figure(first, second, tolerance=0.01).verdict == "same"

    @pytest.mark.parametrize(("value", "verdict"), [(2.0 + 1e-7, "same"), (2.0 + 1e-4, "differs")])
    def test_what_lies_behind_six_digits_is_the_same(self, make_record: MakeRecord, value: float, verdict: str):
        assert the_figure(with_figure(make_record, 2.0), with_figure(make_record, value)).verdict == verdict

    def test_two_zeros_are_the_same(self, make_record: MakeRecord):
        assert the_figure(with_figure(make_record, 0.0), with_figure(make_record, 0.0)).verdict == "same"


class TestStages:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store(tmp_path / "store")

    def test_the_first_whose_artefacts_differ_is_told(self, make_record: MakeRecord, store: Store):
        for name, content in (("w1", [1.0, 2.0]), ("w2", [1.0, 2.0]), ("s1", [1.0, 2.0]), ("s2", [1.0, 4.0])):
            put(store, "weights" if name[0] == "w" else "sample", name, np.array(content))
        first, second = (
            make_record(stages=[stage("weights", f"w{side}"), stage("sample", f"s{side}"), stage("score", f"x{side}")])
            for side in (1, 2)
        )
        found = cell_difference(first, second, (store, store))
        assert found.stage is not None
        assert (found.stage.kind, found.stages_compared) == ("sample", 2)
        assert found.stage.file.tensor is not None
        assert (found.stage.file.tensor.differing, found.stage.file.tensor.largest) == (1, 2.0)

    def test_each_side_may_have_a_store_of_its_own(self, make_record: MakeRecord, store: Store, tmp_path: Path):
        other = Store(tmp_path / "other")
        put(store, "sample", "s", np.array([1.0]))
        put(other, "sample", "s", np.array([1.5]))
        record = make_record(stages=[stage("sample", "s")])
        assert cell_difference(record, record, (store, store)).stage is None
        found = cell_difference(record, record, (store, other))
        assert found.stage is not None
        assert found.is_same  # the records are

    def test_what_is_in_no_store_is_not_compared(self, make_record: MakeRecord, store: Store):
        record = make_record(stages=[stage("sample", "s")])
        found = cell_difference(record, record, (store, store))
        assert (found.stage, found.stages_compared) == (None, 0)
