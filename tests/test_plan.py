import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import DataError, QbenchError
from qbench.metrics.extractor import Extractor
from qbench.plan import CellPlan, Plan, make_plan
from qbench.stages.curve import CURVE_SAMPLES
from qbench.stages.sample import SHARD_SIZE, Sample, shards
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.suite import load_suite


@pytest.fixture
def plan(micro_suite: Callable[..., Path]) -> Callable[..., Plan]:
    """Return a function that plans the micro suite with some changes."""
    return lambda **changes: make_plan(load_suite(micro_suite(**changes)))


def of_kind(cell: CellPlan, kind: str) -> set[str]:
    return {digest for digest, stage in cell.stages.items() if stage.kind == kind}


def kinds(stages: dict[str, Stage]) -> Counter[str]:
    return Counter(stage.kind for stage in stages.values())


def test_every_stage_comes_after_its_inputs(plan: Callable[..., Plan]):
    made = plan(methods=["round", "linear"], seeds=[0, 1])
    seen: set[str] = set()
    for digest, stage in made.stages.items():
        assert {each.digest for each in stage.inputs().values()} <= seen
        seen.add(digest)
    assert all(target.digest in seen for cell in made.cells for target in cell.targets)


def test_full_precision_comes_first(plan: Callable[..., Plan]):
    titles = [stage.title for stage in plan().stages.values() if stage.kind == "sample"]
    assert "full precision" in titles[0]


def test_a_cell_has_the_stages_that_its_bits_ask_for(plan: Callable[..., Plan]):
    made = plan(bits=["W4A32", "W32A8", "W4A8"])
    found = {str(cell.cell.bits): {stage.kind for stage in cell.own_stages.values()} for cell in made.cells}
    common = {"sample", "features", "reference", "score", "profile"}
    assert found == {
        "W32A32": common,
        "W4A32": common | {"curve", "weights"},
        "W32A8": common | {"curve", "trajectory", "activations"},
        "W4A8": common | {"curve", "trajectory", "weights", "activations"},
    }


class TestSharing:
    def test_weights_are_shared_by_activation_bits_of_one_method(self, plan: Callable[..., Plan]):
        _, w4a32, w4a8 = plan().cells
        assert of_kind(w4a32, "weights") == of_kind(w4a8, "weights")
        assert len(of_kind(w4a8, "weights")) == 1
        assert of_kind(w4a32, "sample") != of_kind(w4a8, "sample")

    def test_weights_that_know_of_activations_are_not_shared(self, plan: Callable[..., Plan]):
        _, w4a32, w4a8 = plan(methods=["entangled"]).cells
        assert not of_kind(w4a32, "weights") & of_kind(w4a8, "weights")

    def test_all_cells_share_reference_and_full_precision(self, plan: Callable[..., Plan]):
        full, *others = plan(methods=["round", "linear"]).cells
        assert len(of_kind(full, "reference")) == 1
        for cell in others:
            assert of_kind(cell, "reference") == of_kind(full, "reference")
            assert of_kind(full, "sample") < of_kind(cell, "sample")
            assert of_kind(full, "features") < of_kind(cell, "features")

    def test_methods_with_equal_calibration_requests_share_the_trajectory(self, plan: Callable[..., Plan]):
        settings = {"calibration": {"steps": 2, "per_step": 8}}
        methods = ["round", "other-round", {"name": "linear", "settings": settings}]
        made = plan(methods=methods, bits=["W4A8", "W8A8"])
        assert kinds(made.stages)["trajectory"] == 1
        assert kinds(made.stages)["activations"] == 6

    def test_other_requests_and_seeds_have_their_own(self, plan: Callable[..., Plan]):
        made = plan(methods=["round", {"name": "round", "preset": "few"}], bits=["W4A8"], seeds=[0, 1])
        assert kinds(made.stages)["trajectory"] == 4

    def test_the_same_settings_under_two_labels_are_computed_once(self, plan: Callable[..., Plan]):
        once, twice = plan(), plan(methods=["round", {"name": "round", "as": "again"}])
        assert len(twice.cells) == 5
        assert list(twice.stages) == list(once.stages)

    def test_two_metrics_on_one_feature_extract_once(self, plan: Callable[..., Plan]):
        one, two = plan(metrics=["micro-distance"]), plan(metrics=["micro-distance", "mse-to-fp", "micro-contrast"])
        difference = kinds(two.stages)
        difference.subtract(kinds(one.stages))
        assert +difference == Counter(score=2 * len(one.cells) - 1)  # full precision is not compared with itself


class TestCurve:
    def test_full_precision_has_none(self, plan: Callable[..., Plan]):
        full, *others = plan().cells
        assert full.curve is None
        for cell in others:
            assert cell.curve in cell.targets
            assert cell.curve is not None
            assert cell.curve.quantized == cell.shards[0].quantized

    def test_it_is_taken_from_the_first_samples_of_the_cell(self, plan: Callable[..., Plan]):
        few, enough, many = (plan(samples=samples).cells[-1].curve for samples in (12, CURVE_SAMPLES, 300))
        assert few is not None
        assert enough is not None
        assert many is not None
        assert (few.samples, enough.samples, many.samples) == (12, 32, 32)
        assert few.digest != enough.digest == many.digest


class TestShards:
    def test_they_cover_every_sample_once(self):
        for samples in (1, SHARD_SIZE - 1, SHARD_SIZE, SHARD_SIZE + 1, 3 * SHARD_SIZE):
            assert [index for shard in shards(samples) for index in shard] == list(range(samples))
            assert all(len(shard) <= SHARD_SIZE for shard in shards(samples))

    def test_more_samples_reuse_the_full_shards_of_fewer(self, plan: Callable[..., Plan]):
        fewer, more = plan(samples=SHARD_SIZE + 10), plan(samples=2 * SHARD_SIZE)
        shared = set(fewer.stages) & set(more.stages)
        found = [stage for digest, stage in more.stages.items() if digest in shared and isinstance(stage, Sample)]
        assert [(stage.start, stage.stop) for stage in found] == [(0, SHARD_SIZE)] * 3


class TestMissing:
    def test_an_empty_store_misses_everything(self, plan: Callable[..., Plan], tmp_path: Path):
        made = plan()
        assert list(made.missing(Store(tmp_path / "store"))) == list(made.stages)

    def test_what_lies_behind_a_finished_figure_is_not_wanted(
        self, plan: Callable[..., Plan], tmp_path: Path, put_artefact: Callable[..., None]
    ):
        made, store = plan(), Store(tmp_path / "store")
        for target in {target.digest: target for cell in made.cells for target in cell.targets}.values():
            put_artefact(store, target)
        assert made.missing(store) == {}

    def test_what_is_there_is_not_wanted_again(
        self, plan: Callable[..., Plan], tmp_path: Path, put_artefact: Callable[..., None]
    ):
        made, store = plan(), Store(tmp_path / "store")
        weights = next(stage for stage in made.stages.values() if stage.kind == "weights")
        put_artefact(store, weights)
        assert set(made.stages) - set(made.missing(store)) == {weights.digest}

    def test_one_target_can_be_asked_about(self, plan: Callable[..., Plan], tmp_path: Path):
        made, store = plan(), Store(tmp_path / "store")
        assert set(made.missing(store, [made.cells[0].profile])) == {made.cells[0].profile.digest}


class TestRefusals:
    def test_an_extractor_that_nobody_offers(self, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch):
        import micro_plugins

        from qbench.metrics.metric import Need

        monkeypatch.setattr(micro_plugins.MicroDistance, "need", Need("micro-pol", "pooled"))
        with pytest.raises(QbenchError, match="unknown extractor 'micro-pol': did you mean 'micro-pool'"):
            plan()

    def test_a_metric_whose_reference_the_workload_has_not(
        self, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
    ):
        import micro_plugins

        def refuse(*_: object) -> None:
            raise DataError("there are no statistics")

        monkeypatch.setattr(micro_plugins.Micro, "reference", refuse)
        with pytest.raises(QbenchError, match=r"micro\.yaml: micro-distance on micro: there are no statistics"):
            plan()

    def test_images_that_the_extractor_does_not_take(self, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch):
        import micro_plugins

        monkeypatch.setattr(micro_plugins.MicroPool, "image_shapes", ((3, 8, 8),))
        with pytest.raises(QbenchError, match=r"micro-distance.* takes images of shape \(3, 8, 8\), not \(1, 8, 8\)"):
            plan()

    def test_a_feature_that_the_extractor_has_not(self, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch):
        import micro_plugins

        from qbench.metrics.metric import Need

        monkeypatch.setattr(micro_plugins.MicroDistance, "need", Need("micro-pool", "poled"))
        with pytest.raises(QbenchError, match=r"'poled'.*did you mean 'pooled'"):
            plan()


class TestMissingWeights:
    @pytest.fixture
    def asked(self, fake_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """An extractor whose weights are nowhere; notes each time they are asked for."""
        import micro_plugins

        asked: list[str] = []

        def weights(self: Extractor) -> dict[str, str]:
            asked.append(self.name)
            raise DataError("net.pth is missing: put the file there")

        monkeypatch.setattr(micro_plugins.MicroPool, "weights", weights)
        return asked

    def test_only_the_figures_that_need_them_are_not_planned(self, asked: list[str], plan: Callable[..., Plan]):
        made = plan()
        assert {cell.cell.label: set(cell.scores) for cell in made.cells} == {
            "full-precision": set(),
            "round": {"mse-to-fp"},
        }
        assert all(cell.missing == {"micro-distance": "net.pth is missing: put the file there"} for cell in made.cells)
        assert asked == ["micro-pool"]  # once, since large files may be read for it

    def test_a_run_keeps_all_others_and_shows_what_is_missing(
        self, asked: list[str], micro_suite: Callable[..., Path], qbench: Callable[..., Any], workplace: Path
    ):
        answer = qbench("run", micro_suite())
        assert answer.code == 1
        table = (workplace / "results" / "micro" / "table.md").read_text(encoding="utf-8")
        row = next(line for line in table.splitlines() if line.startswith("| round | W4A8"))
        assert "| failed |" in row
        assert re.search(r"\| 0\.\d+ \|", row)
        assert "net.pth is missing: put the file there" in table
        again = qbench("check", micro_suite())
        assert again.code == 1
        assert "3 failed" in again.out
