"""What becomes of stages that fail, that another process computes, or that exist already."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import StageError
from qbench.execution.inline import Inline
from qbench.execution.listener import Listener
from qbench.execution.run import Outcome, run_suite
from qbench.plan import Plan, make_plan
from qbench.records import Record
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store
from qbench.suite import load_suite

BAD = ["raises", "nan-output", "nan-grid"]
RUNTIME = Runtime("cpu")


@dataclass
class Witness(Listener):
    """Writes down everything it hears."""

    events: list[tuple[str, str]] = field(default_factory=list)
    work: dict[str, float] = field(default_factory=dict)

    def _note(self, event: str, stage: Stage) -> None:
        self.events.append((event, stage.digest))

    def started(self, stage: Stage) -> None:
        self._note("started", stage)

    def advanced(self, stage: Stage, amount: float) -> None:
        self.work[stage.digest] = self.work.get(stage.digest, 0.0) + amount

    def finished(self, stage: Stage, seconds: float) -> None:
        self._note("finished", stage)

    def appeared(self, stage: Stage) -> None:
        self._note("appeared", stage)

    def waiting(self, stage: Stage) -> None:
        self._note("waiting", stage)

    def failed(self, stage: Stage, reason: str, details: str) -> None:
        self._note("failed", stage)

    def damaged(self, stage: Stage, reason: str) -> None:
        self._note("damaged", stage)

    def of(self, event: str) -> list[str]:
        return [digest for name, digest in self.events if name == event]


@pytest.fixture
def plan(micro_suite: Callable[..., Path], one_thread: None) -> Callable[..., Plan]:
    return lambda **changes: make_plan(load_suite(micro_suite(**changes)))


@pytest.fixture
def run(micro_suite: Callable[..., Path], one_thread: None, workplace: Path) -> Callable[..., tuple[Outcome, Witness]]:
    """Return a function that runs the micro suite with some changes."""

    def run_one(**changes: Any) -> tuple[Outcome, Witness]:
        witness = Witness()
        suite = load_suite(micro_suite(**changes))
        return run_suite(suite, Store(workplace / "store"), workplace / "results", RUNTIME, witness), witness

    return run_one


def by_row(outcome: Outcome) -> dict[tuple[str, str], Record]:
    return {(record.label, record.bits): record for record in outcome.records}


def test_every_stage_is_started_and_finished_once(
    run: Callable[..., tuple[Outcome, Witness]], plan: Callable[..., Plan]
):
    outcome, witness = run()
    wanted = list(plan().stages)
    assert sorted(witness.of("started")) == sorted(wanted) == sorted(witness.of("finished"))
    assert {name for name, _ in witness.events} == {"started", "finished"}
    assert [record.status for record in outcome.records] == ["complete"] * 3
    assert [set(record.results) for record in outcome.records] == [
        {"profile", "micro-distance"},
        *[{"profile", "curve", "micro-distance", "mse-to-fp"}] * 2,
    ]
    assert [record.curve and len(record.curve.free_running) for record in outcome.records] == [None, 5, 5]


def test_the_work_that_is_reported_is_that_of_the_stage(
    run: Callable[..., tuple[Outcome, Witness]], plan: Callable[..., Plan]
):
    """Of a method's stages it is 1, whatever they do."""
    changes = {"methods": ["round", "linear"], "bits": ["W4A8"]}
    _, witness = run(**changes)
    stages = plan(**changes).stages
    told = {stages[digest].kind for digest in witness.work}
    assert {"activations", "sample", "trajectory"} <= told
    assert {stages[digest].work for digest in witness.work if stages[digest].kind == "activations"} == {1.0}
    for digest, amount in witness.work.items():
        assert amount == pytest.approx(stages[digest].work), stages[digest].title


def test_a_cell_is_settled_as_soon_as_it_is_complete_and_once(plan: Callable[..., Plan], workplace: Path):
    witness, made = Witness(), plan()
    left: list[tuple[str, int]] = []
    executor = Inline(made, Store(workplace / "store"), RUNTIME, witness)
    executor.run(lambda cell: left.append((cell.cell.label + str(cell.cell.bits), len(witness.of("finished")))))
    assert [name for name, _ in left] == ["full-precisionW32A32", "roundW4A32", "roundW4A8"]
    assert left[0][1] < left[1][1] < left[2][1] == len(made.stages)


def test_a_record_waits_for_images_that_only_others_are_compared_with(
    run: Callable[..., tuple[Outcome, Witness]], workplace: Path
):
    """Or the next run would add their cost, their environment and a picture to what was said to be complete."""
    changes = {"metrics": ["mse-to-fp"], "bits": ["W4A32"]}
    first = [record.model_copy(update={"git": None}) for record in run(**changes)[0].records]
    assert "sample" in [cost.stage for cost in first[0].stages]
    assert (workplace / "results/micro/media/strips/micro.full-precision.W32A32.s0.png").is_file()
    assert [record.model_copy(update={"git": None}) for record in run(**changes)[0].records] == first


class TestFailure:
    @pytest.fixture
    def failing(self, run: Callable[..., tuple[Outcome, Witness]]) -> tuple[Outcome, Witness]:
        return run(methods=["linear", *BAD, "round"], bits=["W4A32"])

    def test_it_fails_the_cells_that_need_it_and_nothing_else(self, failing: tuple[Outcome, Witness]):
        found = {record.label: record.status for record in failing[0].records}
        assert found == {"full-precision": "complete", "linear": "complete", "round": "complete"} | dict.fromkeys(
            BAD, "failed"
        )
        assert {record.label for record in failing[0].failed} == set(BAD)

    def test_the_record_says_why_in_one_line(self, failing: tuple[Outcome, Witness]):
        records = by_row(failing[0])
        reasons = {label: records[label, "W4A32"].reason or "" for label in BAD}
        assert reasons["raises"] == "weights: RuntimeError: no luck with <script>alert(1)</script> | these weights"
        assert "not finite, first at step 0 of 4 (sample 0)" in reasons["nan-output"]
        assert reasons["nan-output"].startswith("sample: ")
        assert "a grid that is not finite" in reasons["nan-grid"]
        assert reasons["nan-grid"].startswith("weights: ")
        assert not any("\n" in reason for reason in reasons.values())

    def test_every_figure_that_is_not_there_has_the_reason(self, failing: tuple[Outcome, Witness]):
        for label in BAD:
            record = by_row(failing[0])[label, "W4A32"]
            assert record.figures == {}
            assert set(record.failures) == {"micro-distance", "mse-to-fp", "curve"}
            assert record.curve is None
            assert {record.failures[name] for name in record.metrics} == {record.reason}
            assert record.failures["curve"].partition(": ")[2] == (record.reason or "").partition(": ")[2]

    def test_a_stage_that_failed_is_told_once(self, failing: tuple[Outcome, Witness]):
        failed = failing[1].of("failed")
        assert len(failed) == len(set(failed))
        assert not set(failed) & set(failing[1].of("finished"))

    def test_what_could_be_computed_is_there(self, failing: tuple[Outcome, Witness]):
        """The model that puts out NaN has a size, and it is told."""
        assert by_row(failing[0])["nan-output", "W4A32"].profile is not None
        assert by_row(failing[0])["raises", "W4A32"].profile is None

    def test_the_next_run_tries_the_failed_ones_only(
        self, failing: tuple[Outcome, Witness], run: Callable[..., tuple[Outcome, Witness]], monkeypatch: Any
    ):
        import micro_plugins

        before = by_row(failing[0])
        monkeypatch.setattr(micro_plugins.Raises, "quantize_weights", micro_plugins.Round.quantize_weights)
        again, witness = run(methods=["linear", *BAD, "round"], bits=["W4A32"])
        after = by_row(again)
        assert {record.label for record in again.failed} == {"nan-output", "nan-grid"}
        assert (after["raises", "W4A32"].status, after["raises", "W4A32"].reason) == ("complete", None)
        assert all(before[key] == after[key] for key in before if key[0] not in BAD)
        assert not set(witness.of("started")) & set(failing[1].of("finished"))

    def test_full_precision_that_fails_takes_all_comparisons_with_it(
        self, run: Callable[..., tuple[Outcome, Witness]], monkeypatch: pytest.MonkeyPatch
    ):
        from micro_network import MicroDenoiser

        def broken(*_: object, **__: object) -> None:
            raise MemoryError("no room")

        monkeypatch.setattr(MicroDenoiser, "forward", broken)
        outcome, _ = run()
        assert {record.status for record in outcome.records} == {"failed"}
        assert all("MemoryError: no room" in (record.reason or "") for record in outcome.records)

    def test_a_figure_that_is_not_a_number_is_a_failure_and_never_0(self, run: Callable[..., tuple[Outcome, Witness]]):
        outcome, _ = run(metrics=["micro-nan", "mse-to-fp"], methods=["round"], bits=["W4A32"])
        for record in outcome.records:
            assert record.status == "failed"
            assert set(record.figures) == record.metrics.keys() - {"micro-nan"}
            assert set(record.failures) == {"micro-nan"}
            assert "nan" in record.failures["micro-nan"]

    def test_a_curve_that_fails_leaves_the_figures_standing(
        self, run: Callable[..., tuple[Outcome, Witness]], monkeypatch: pytest.MonkeyPatch
    ):
        from qbench.stages import lockstep

        def broken(*_: object) -> None:
            raise StageError("the free-running error is not finite, first at step 2 of 4")

        monkeypatch.setattr(lockstep, "lockstep", broken)
        outcome, _ = run()
        full, *others = outcome.records
        assert (full.status, full.failures, full.curve) == ("complete", {}, None)
        for record in others:
            assert record.status == "failed"
            assert record.reason == "curve: the free-running error is not finite, first at step 2 of 4"
            assert record.failures == {"curve": record.reason}
            assert set(record.figures) == {"micro-distance", "mse-to-fp"}
            assert record.profile is not None
            assert record.curve is None

    def test_a_plugin_that_ends_the_process_ends_its_cells_only(self, run: Callable[..., tuple[Outcome, Witness]]):
        outcome, _ = run(methods=["exits", "round"], bits=["W4A32"])
        assert {record.label: record.status for record in outcome.records} == {
            "full-precision": "complete",
            "exits": "failed",
            "round": "complete",
        }

    def test_an_extractor_that_fails_takes_its_metrics_only(
        self, run: Callable[..., tuple[Outcome, Witness]], monkeypatch: pytest.MonkeyPatch
    ):
        import micro_plugins

        def broken(*_: object) -> None:
            raise ValueError("no such layer")

        monkeypatch.setattr(micro_plugins.MicroPool, "load", broken)
        outcome, _ = run(bits=["W4A32"])
        for record in outcome.records:
            assert set(record.figures) == record.metrics.keys() - {"micro-distance"}
            assert "ValueError: no such layer" in record.failures["micro-distance"]


class TestOtherProcesses:
    def test_what_another_one_computes_is_passed_over_and_waited_for_last(
        self, plan: Callable[..., Plan], workplace: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from qbench.execution import inline

        made, store, other = plan(), Store(workplace / "store"), Store(workplace / "store")
        weights = next(stage for stage in made.stages.values() if stage.kind == "weights")
        claim = other.claim(weights.digest)
        assert claim.__enter__()
        witness = Witness()
        monkeypatch.setattr(inline.time, "sleep", lambda _: claim.__exit__(None, None, None))
        Inline(made, store, RUNTIME, witness).run(lambda _: None)
        assert witness.of("waiting") == [weights.digest]
        before = [digest for name, digest in witness.events[: witness.events.index(("waiting", weights.digest))]]
        kinds = {made.stages[digest].kind for digest in before}
        assert {"sample", "score", "trajectory"} <= kinds
        assert set(witness.of("finished")) == set(made.stages)

    def test_what_appears_meanwhile_is_not_computed_again(self, plan: Callable[..., Plan], workplace: Path):
        made = plan(bits=["W4A32"])

        class Meddler(Witness):
            """As the first stage ends, another process finishes all the others."""

            def finished(self, stage: Stage, seconds: float) -> None:
                super().finished(stage, seconds)
                if len(self.of("finished")) == 1:
                    Inline(made, Store(workplace / "store"), RUNTIME, Listener()).run(lambda _: None)

        witness = Meddler()
        executor = Inline(made, Store(workplace / "store"), RUNTIME, witness)
        executor.run(lambda _: None)
        assert len(witness.of("started")) == 1
        assert sorted(witness.of("appeared") + witness.of("finished")) == sorted(made.stages)
        assert executor.failures == {}

    def test_two_that_meet_the_same_damage_both_go_on(
        self, plan: Callable[..., Plan], workplace: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The other process sets the artefact aside between this one's look at it and its own move."""
        made, store = plan(bits=["W4A32"]), Store(workplace / "store")
        Inline(made, store, RUNTIME, Listener()).run(lambda _: None)
        score = made.cells[0].scores["micro-distance"]
        with store.folder("score", score.digest).joinpath("score.json").open("a") as file:
            file.write(" ")
        set_aside = Store.set_aside

        def after_another(self: Store, kind: str, digest: str) -> Path:
            monkeypatch.setattr(Store, "set_aside", set_aside)
            set_aside(Store(workplace / "store"), kind, digest)
            return set_aside(self, kind, digest)

        monkeypatch.setattr(Store, "set_aside", after_another)
        witness = Witness()
        Inline(made, Store(workplace / "store"), RUNTIME, witness).run(lambda _: None)
        assert witness.of("finished") == [score.digest]
