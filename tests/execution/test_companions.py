"""Processes that share a run: what they leave behind is what one process leaves, and none of them stays."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.execution import companions as module
from qbench.execution.companions import companions
from qbench.execution.executor import Crew
from qbench.execution.listener import Listener
from qbench.execution.run import run_suite
from qbench.plan import Plan, make_plan
from qbench.stages.stage import Runtime
from qbench.store import Store
from qbench.suite import load_suite

Qbench = Callable[..., Any]
Start = Callable[..., Any]
MicroSuite = Callable[..., Path]
STAGES = 20
"""Of the micro suite."""
FIRST_BATCH = "denoiser-12"
"""Where both processes can be stopped: five stages sample, in full precision and, with the curve, at two bits."""


def tables(results: Path) -> dict[str, bytes]:
    names = ("table.csv", "table.md", "curves.csv", "protocols.json", "media/curves.micro.svg")
    return {name: (results / "micro" / name).read_bytes() for name in names}


@pytest.fixture(scope="session")
def expected(uninterrupted: Path) -> dict[str, bytes]:
    """The tables of one process."""
    return tables(uninterrupted / "results")


@pytest.fixture
def plan(micro_suite: MicroSuite) -> Plan:
    return make_plan(load_suite(micro_suite()))


def all_at(place: str) -> Callable[[list[tuple[int, str]]], bool]:
    """Whether two processes have come to a place."""
    return lambda places: len({pid for pid, each in places if each == place}) == 2


def companion_of(running: Any) -> int:
    """Return the process that works with the first one, as soon as there is one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        listing = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,pgid=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(maxsplit=2) for line in listing.stdout.splitlines()]
        of_group = [row for row in rows if int(row[1]) == running.process.pid and "spawn_main" in row[-1]]
        if of_group:
            return int(of_group[0][0])
    pytest.fail(f"no companion was started:\n{running.err}")


HELD_BACK = """
import signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from qbench.execution import companions as module

def work(plan, root, runtime):
    (Path(root) / "part").write_text(str(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    (Path(root) / "part").rename(Path(root) / "answer")

if __name__ == "__main__":
    module._work = work
    answer = Path(sys.argv[1]) / "answer"
    with module.companions(1, None, SimpleNamespace(root=Path(sys.argv[1])), None):
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        while not answer.exists():
            time.sleep(0.01)
    print(answer.read_text())
"""


class Recorded:
    """Takes the place of a process and writes down what becomes of it."""

    def __init__(self, events: list[tuple[str, str]], name: str, failing: set[str]) -> None:
        self._events, self._name, self._failing = events, name, failing
        self.pid: int | None = None

    def start(self) -> None:
        if self._name in self._failing:
            raise OSError("no more processes")
        self._events.append(("start", self._name))
        self.pid = 1

    def terminate(self) -> None:
        self._events.append(("terminate", self._name))

    def join(self) -> None:
        self._events.append(("join", self._name))


class TestStarting:
    @pytest.fixture
    def failing(self) -> set[str]:
        """Names of processes that do not start."""
        return set()

    @pytest.fixture
    def events(self, failing: set[str], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
        """What becomes of processes, none of which is real."""
        events: list[tuple[str, str]] = []

        class Context:
            def Process(self, target: Any, args: Any, name: str) -> Recorded:
                assert pickle.loads(pickle.dumps((target, args)))
                return Recorded(events, name, failing)

        monkeypatch.setattr(module, "get_context", lambda method: Context() if method == "spawn" else None)
        return events

    @pytest.mark.parametrize("fails", [False, True])
    def test_they_are_ended_and_waited_for_whatever_happens(
        self, events: list[tuple[str, str]], plan: Plan, workplace: Path, fails: bool
    ):
        def work() -> None:
            with companions(2, plan, Store(workplace / "store"), Runtime("cpu")):
                assert events == [("start", "qbench-2"), ("start", "qbench-3")]
                if fails:
                    raise KeyboardInterrupt

        if fails:
            with pytest.raises(KeyboardInterrupt):
                work()
        else:
            work()
        assert events[2:] == [(each, name) for each in ("terminate", "join") for name in ("qbench-2", "qbench-3")]

    def test_if_one_does_not_start_the_others_are_ended(
        self, events: list[tuple[str, str]], failing: set[str], plan: Plan, workplace: Path
    ):
        failing.add("qbench-3")
        with (
            pytest.raises(OSError, match="no more processes"),
            companions(3, plan, Store(workplace / "store"), Runtime("cpu")),
        ):
            pytest.fail("not all are there")
        assert events == [(each, "qbench-2") for each in ("start", "terminate", "join")]

    def test_ctrl_c_is_held_back_from_them(self, workplace: Path):
        """In a process that has started no other before, as the first one is."""
        script = workplace / "first.py"
        script.write_text(HELD_BACK)
        done = subprocess.run([sys.executable, script, workplace], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")

    @pytest.mark.parametrize("processes", [1, 2, 4])
    def test_a_run_is_one_of_its_processes(
        self, events: list[tuple[str, str]], micro_suite: MicroSuite, workplace: Path, one_thread: None, processes: int
    ):
        suite = load_suite(micro_suite(bits=["W4A32"]))
        store = Store(workplace / "store")
        crew = Crew(processes)
        outcome = run_suite(suite, store, workplace / "results", Runtime("cpu"), Listener(), crew=crew)
        assert [record.status for record in outcome.records] == ["complete"] * 2
        assert [event for event, _ in events] == [
            each for each in ("start", "terminate", "join") for _ in range(processes - 1)
        ]

    def test_a_plan_is_the_same_in_another_process(self, plan: Plan):
        again = pickle.loads(pickle.dumps(plan))
        assert list(again.stages) == list(plan.stages)
        assert [cell.cell.id for cell in again.cells] == [cell.cell.id for cell in plan.cells]
        assert [stage.work for stage in again.stages.values()] == [stage.work for stage in plan.stages.values()]


@pytest.mark.slow
class TestSharing:
    def test_nothing_is_computed_twice_and_the_tables_are_those_of_one_process(
        self,
        start: Start,
        qbench: Qbench,
        micro_suite: MicroSuite,
        workplace: Path,
        expected: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setenv("MICRO_TRACE", str(workplace / "alone.trace"))
        assert qbench("run", micro_suite(), "--store", "alone", "--results", "alone").code == 0
        alone = [line.partition(" ")[2] for line in (workplace / "alone.trace").read_text().splitlines()]
        monkeypatch.delenv("MICRO_TRACE")
        running = start("run", micro_suite(), "--processes", 2, pause=FIRST_BATCH)
        running.reach_places(all_at(FIRST_BATCH), "a batch of samples in both processes")
        running.go_on()
        assert running.wait() == 0, running.err
        assert tables(workplace / "results") == tables(workplace / "alone") == expected
        assert Counter(place for _, place in running.places()) == Counter(alone)
        first, second = {pid for pid, _ in running.places()}
        assert first != second
        assert len(list((workplace / "store" / "artefacts").glob("*/*"))) == STAGES
        assert list((workplace / "store" / "pending").iterdir()) == []
        assert qbench("store", "verify", "--json").json["damaged"] == []
        running.leave_nothing_running()

    @pytest.mark.parametrize("processes", [2, 3])
    def test_from_a_shell_too(
        self, micro_suite: MicroSuite, workplace: Path, expected: dict[str, bytes], processes: int
    ):
        command = [sys.executable, "-m", "qbench", "run", micro_suite(), "--processes", str(processes)]
        done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert tables(workplace / "results") == expected
        lines = done.stderr.splitlines()
        assert lines[0] == f"{STAGES} of {STAGES} stages to compute"
        assert lines[-1] == "results/micro/table.md"
        assert all(line.startswith(("[", "waiting for another process")) for line in lines[1:-1])

    def test_a_stage_that_fails_is_told_as_by_one_process(
        self, start: Start, qbench: Qbench, micro_suite: MicroSuite, workplace: Path
    ):
        suite = micro_suite(methods=["raises", "nan-output", "exits", "round"], bits=["W4A32"])
        alone = qbench("run", suite, "--store", "alone", "--results", "alone", "--json")
        running = start("run", suite, "--processes", 2, pause=FIRST_BATCH)
        running.reach_places(all_at(FIRST_BATCH), "a batch of samples in both processes")
        running.go_on()
        assert (running.wait(), alone.code) == (1, 1)
        assert tables(workplace / "results") == tables(workplace / "alone")
        told = [line for line in running.err.splitlines() if line.startswith("failed: ")]
        assert [line.split(": ")[1] for line in told] == [
            line.split(": ")[1] for line in alone.err.splitlines() if line.startswith("failed: ")
        ]
        assert len(told) == 4  # of the model that puts out NaN, images and curve
        assert "3 of 5 cells failed" in running.err.splitlines()
        assert "Traceback" not in running.err
        running.leave_nothing_running()

    def test_a_companion_that_is_killed_is_done_without(
        self, start: Start, micro_suite: MicroSuite, workplace: Path, expected: dict[str, bytes]
    ):
        running = start("run", micro_suite(), "--processes", 2, pause=FIRST_BATCH)
        running.reach_places(all_at(FIRST_BATCH), "a batch of samples in both processes")
        os.kill(companion_of(running), signal.SIGKILL)
        running.go_on()
        assert running.wait() == 0, running.err
        assert tables(workplace / "results") == expected
        running.leave_nothing_running()


@pytest.mark.slow
class TestEnding:
    @pytest.mark.parametrize("companion_is", ["importing", "at work"])
    def test_companions_do_not_outlive_the_first_process(
        self,
        companion_is: str,
        start: Start,
        qbench: Qbench,
        micro_suite: MicroSuite,
        workplace: Path,
        expected: dict[str, bytes],
    ):
        running = start("run", micro_suite(), "--processes", 2, pause=FIRST_BATCH)
        if companion_is == "importing":
            running.reach_pause()
        else:
            running.reach_places(all_at(FIRST_BATCH), "a batch of samples in both processes")
        assert companion_of(running) in running.group()
        running.kill()
        running.leave_nothing_running()
        assert qbench("store", "verify", "--json").json["damaged"] == []
        assert qbench("run", micro_suite()).code == 0
        assert tables(workplace / "results") == expected

    def test_ctrl_c_ends_all_with_one_sentence(
        self, start: Start, qbench: Qbench, micro_suite: MicroSuite, workplace: Path, expected: dict[str, bytes]
    ):
        running = start("run", micro_suite(), "--processes", 2, pause=FIRST_BATCH)
        running.reach_places(all_at(FIRST_BATCH), "a batch of samples in both processes")
        assert running.interrupt() == 130
        running.leave_nothing_running()
        told = [line for line in running.err.splitlines() if line and not line.startswith("[")][1:]
        assert told == ["qbench: stopped; what is finished is kept, run the same command to go on"]
        assert qbench("store", "verify", "--json").json["damaged"] == []
        again = qbench("run", micro_suite())
        assert again.code == 0, again.err
        assert tables(workplace / "results") == expected

    def test_ctrl_c_is_for_the_first_process_only_from_the_very_first(
        self, start: Start, micro_suite: MicroSuite, workplace: Path, expected: dict[str, bytes]
    ):
        """It reaches every process; which of them it ends is for the first one to say."""
        running = start("run", micro_suite(), "--processes", 2, pause=FIRST_BATCH)
        companion = companion_of(running)
        while not all_at(FIRST_BATCH)(running.places()):
            assert companion in running.group(), running.err
            os.kill(companion, signal.SIGINT)
        running.go_on()
        assert running.wait() == 0
        assert "Traceback" not in running.err
        assert tables(workplace / "results") == expected
