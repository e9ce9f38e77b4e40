"""Ray on two nodes leaves what one process leaves, whatever happens to its workers."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from qbench.errors import QbenchError
from qbench.execution import ray_cluster
from qbench.execution.executor import Crew
from qbench.execution.listener import Listener
from qbench.execution.run import Outcome, run_suite
from qbench.plan import Plan, make_plan
from qbench.records import Record, read_record
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store, verify
from qbench.suite import load_suite

Run = Callable[..., Outcome]
TABLES = ("table.csv", "table.md", "curves.csv", "protocols.json", "media/curves.micro.svg", "media/micro.s0.png")
PATIENCE_SECONDS = 60.0


class Witness(Listener):
    """Writes down what becomes of stages, by kind."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.workers = 0

    def joined(self, workers: int) -> None:
        self.workers = workers

    def started(self, stage: Stage) -> None:
        self.events.append(("started", stage.digest))

    def finished(self, stage: Stage, seconds: float) -> None:
        self.events.append(("finished", stage.digest))

    def appeared(self, stage: Stage) -> None:
        self.events.append(("appeared", stage.digest))

    def waiting(self, stage: Stage) -> None:
        self.events.append(("waiting", stage.digest))

    def failed(self, stage: Stage, reason: str, details: Path | None) -> None:
        self.events.append(("failed", stage.digest))

    def damaged(self, stage: Stage, reason: str) -> None:
        self.events.append(("damaged", stage.digest))

    def of(self, event: str) -> list[str]:
        return [digest for name, digest in self.events if name == event]


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def plan(micro_suite: Callable[..., Path]) -> Callable[..., Plan]:
    return lambda **changes: make_plan(load_suite(micro_suite(**changes)))


@pytest.fixture
def trace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[int, str]]]:
    """Return a function that gives the places that workers have reached, each after a process's id."""
    monkeypatch.setattr(ray_cluster, "HANDED_ON", (*ray_cluster.HANDED_ON, "MICRO_"))
    monkeypatch.setenv("MICRO_TRACE", str(workplace / "trace"))

    def places() -> list[tuple[int, str]]:
        lines = (workplace / "trace").read_text().splitlines() if (workplace / "trace").exists() else []
        return [(int(line.partition(" ")[0]), line.partition(" ")[2]) for line in lines]

    return places


@pytest.fixture
def run(two_nodes: Any, micro_suite: Callable[..., Path], workplace: Path, trace: Any, witness: Witness) -> Run:
    """Return a function that runs the micro suite with some changes on the cluster."""

    def run_one(**changes: Any) -> Outcome:
        suite, store = load_suite(micro_suite(**changes)), Store(workplace / "store")
        return run_suite(
            suite, store, workplace / "results", Runtime("cpu"), witness, "ray", Crew(address="auto", threads=1)
        )

    return run_one


def tables(results: Path) -> dict[str, bytes]:
    return {name: (results / "micro" / name).read_bytes() for name in TABLES}


def records(results: Path) -> dict[str, Record]:
    """Return the records of a run, without what may differ: times, memory, and the checkout that it is of."""
    found = {}
    for path in sorted((results / "micro" / "records").iterdir()):
        record = read_record(path)
        stages = [cost.model_copy(update={"seconds": 0.0, "peak_memory_mb": 0.0}) for cost in record.stages]
        found[path.name] = record.model_copy(update={"stages": stages, "git": None})
    return found


def as_soon_as(happened: Callable[[], bool], act: Callable[[], object]) -> Thread:
    """Do something in a thread as soon as something has happened, or at the end of patience."""

    def watch() -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not happened() and time.monotonic() < end:
            time.sleep(0.02)
        act()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    return thread


class TestTwoNodes:
    def test_they_leave_to_the_byte_what_one_process_leaves(
        self,
        run: Run,
        plan: Callable[..., Plan],
        trace: Callable[[], list[tuple[int, str]]],
        witness: Witness,
        two_nodes: Any,
        uninterrupted: Path,
        workplace: Path,
    ):
        outcome = run()
        assert outcome.failed == ()
        assert tables(workplace / "results") == tables(uninterrupted / "results")
        assert records(workplace / "results") == records(uninterrupted / "results")
        assert sorted(witness.of("started")) == sorted(plan().stages) == sorted(witness.of("finished"))
        assert {name for name, _ in witness.events} == {"started", "finished"}
        assert witness.workers == 2
        pids = {pid for pid, _ in trace()}
        assert os.getpid() not in pids
        assert len(pids & two_nodes.of_second()) == 1
        assert len(pids) == 2, "each worker is used again and again"
        assert list((workplace / "store" / "pending").iterdir()) == []

    def test_what_failed_is_told_once_and_others_finish(
        self, run: Run, trace: Callable[[], list[tuple[int, str]]], witness: Witness
    ):
        outcome = run(methods=["raises", "dies", "exits", "round"], bits=["W4A32"])
        found = {record.label: record for record in outcome.records}
        assert {label: record.status for label, record in found.items()} == {
            "full-precision": "complete",
            "raises": "failed",
            "dies": "failed",
            "exits": "failed",
            "round": "complete",
        }
        assert found["raises"].reason == "weights: RuntimeError: no luck with <script>alert(1)</script> | these weights"
        assert found["exits"].reason == "weights: SystemExit: 7"
        assert (found["dies"].reason or "").startswith("weights: its worker died, 2 times: ")
        assert len([place for _, place in trace() if place == "death"]) == 2
        assert sorted(witness.of("started").count(digest) for digest in witness.of("failed")) == [1, 1, 2]

    def test_an_input_that_is_damaged_is_computed_again(
        self, run: Run, plan: Callable[..., Plan], witness: Witness, finished_suite: Path, workplace: Path
    ):
        store = Store(workplace / "store")
        made = plan()
        features = next(stage for stage in made.stages.values() if stage.kind == "features")
        (images,) = features.inputs().values()
        score = next(stage for stage in made.stages.values() if features in stage.inputs().values())
        for stage in (features, score):
            store.discard(store.folder(stage.kind, stage.digest))
        with (store.folder("sample", images.digest) / "images.npy").open("ab") as file:
            file.write(b"!")
        before = tables(workplace / "results")
        assert run().failed == ()
        assert witness.of("damaged") == [images.digest]
        assert set(witness.of("finished")) == {images.digest, features.digest, score.digest}
        assert tables(workplace / "results") == before
        assert verify(store).damaged == ()

    def test_what_another_process_computes_is_waited_for(
        self, run: Run, plan: Callable[..., Plan], witness: Witness, workplace: Path
    ):
        weights = next(stage for stage in plan().stages.values() if stage.kind == "weights")
        claim = Store(workplace / "store").claim(weights.digest)
        assert claim.__enter__()
        release = as_soon_as(
            lambda: witness.of("started").count(weights.digest) > 1, lambda: claim.__exit__(None, None, None)
        )
        assert run(bits=["W4A32"]).failed == ()
        release.join()
        assert witness.of("finished").count(weights.digest) == 1
        assert witness.of("started").count(weights.digest) > 1


class TestBeforeAnyWork:
    def test_a_node_that_does_not_see_the_store(self, run: Run, witness: Witness, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(ray_cluster, "TOKEN", "seen-from-here-only")
        with pytest.raises(
            QbenchError, match=r"the node .+ cannot work on this run: it does not see the store .+/store"
        ):
            run()
        assert witness.of("started") == []

    def test_a_node_with_another_version(self, run: Run, witness: Witness, monkeypatch: pytest.MonkeyPatch):
        versions = ray_cluster.versions() | {"torch": "1.0"}
        monkeypatch.setattr(ray_cluster, "versions", lambda: versions)
        with pytest.raises(QbenchError, match=r"torch is .+ there and 1\.0 on .+: install the same versions"):
            run()
        assert witness.of("started") == []

    def test_a_node_without_a_plugin(self, run: Run, install: Callable[..., None], witness: Witness):
        source = "from micro_plugins import Round\nclass Mine(Round):\n    title = 'mine'\n"
        install("mine", "[qbench.methods]\nmine = mine_plugin:Mine\n", {"mine_plugin.py": source})
        with pytest.raises(QbenchError, match=r"mine is not installed there and 1\.0 on "):
            run(methods=["mine"])
        assert witness.of("started") == []

    def test_threads_that_no_node_has(
        self, two_nodes: Any, micro_suite: Callable[..., Path], workplace: Path, witness: Witness
    ):
        with pytest.raises(QbenchError, match="no node of the cluster has 3 processors"):
            run_suite(
                load_suite(micro_suite()),
                Store(workplace / "store"),
                workplace / "results",
                Runtime("cpu"),
                witness,
                "ray",
                Crew(address="auto", threads=3),
            )

    def test_an_accelerator_that_no_node_has(self, two_nodes: Any, micro_suite: Callable[..., Path], workplace: Path):
        store = Store(workplace / "store")
        with pytest.raises(QbenchError, match="--device cuda: the cluster has no accelerators"):
            run_suite(
                load_suite(micro_suite()), store, workplace / "results", Runtime("cuda"), Listener(), "ray", Crew()
            )


class TestDeath:
    def test_a_node_that_dies_in_the_middle_loses_nothing(
        self,
        run: Run,
        trace: Callable[[], list[tuple[int, str]]],
        two_nodes: Any,
        witness: Witness,
        uninterrupted: Path,
        workplace: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setenv("MICRO_PAUSE", "denoiser-12")
        monkeypatch.setenv("MICRO_MARKER", str(workplace / "marker"))

        over, marker = Event(), workplace / "marker"

        def second_samples() -> bool:
            return bool({pid for pid, place in trace() if place == "denoiser-12"} & two_nodes.of_second())

        def kill_and_let_go() -> None:
            two_nodes.kill_second()
            while not over.is_set():
                marker.unlink(missing_ok=True)
                time.sleep(0.02)

        killer = as_soon_as(second_samples, kill_and_let_go)
        try:
            outcome = run()
        finally:
            over.set()
            killer.join()
            two_nodes.replace_second()
        assert outcome.failed == ()
        assert tables(workplace / "results") == tables(uninterrupted / "results")
        twice = [digest for digest in witness.of("started") if witness.of("started").count(digest) == 2]
        assert len(twice) == 2, "one stage was under way on the second node"
        assert sorted(witness.of("finished")) == sorted(set(witness.of("started")))
        assert verify(Store(workplace / "store")).damaged == ()
