"""What the tests of faults share: commands in processes of their own, what they must leave, and a tally of it all.

With ``QBENCH_FAULTS`` naming a file, the tally is written to it after each fault, for ``write_table.py``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from qbench.plan import make_plan
from qbench.records import read_record
from qbench.stages.stage import Stage
from qbench.store import Store, verify
from qbench.suite import find_suite, load_suite

SOURCES = Path(__file__).parent / "faulty"
ENTRY_POINTS = (SOURCES / "entry_points.txt").read_text(encoding="utf-8")
VARYING = ("costs.csv", "costs.md")
"""Files of the results that hold times and memory."""
PATIENCE_SECONDS = 600.0
"""How long a command may take, on a machine that is as busy as it gets."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; the negative number of a signal that killed it.
        out: standard output.
        err: standard error.
        seconds: how long it ran.
    """

    code: int
    out: str
    err: str
    seconds: float

    @property
    def computed(self) -> list[str]:
        """The stages that it says it has computed, without their numbers and times."""
        return re.findall(r"^\[\d+/\d+\] (.*): \d+\.\d s", self.err, flags=re.MULTILINE)

    @property
    def warnings(self) -> list[str]:
        """What it warns of."""
        return [line for line in self.err.splitlines() if line.startswith("warning: ")]


@dataclass
class Launched:
    """A command in a process group of its own."""

    process: Any
    log: Path
    begun: float = field(default_factory=time.monotonic)

    def kill(self) -> int:
        """Kill the group as ``kill -9`` does; return the exit code of a command that had ended before."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # if it had no group of its own yet
        return self._join()

    def wait(self) -> Ended:
        """Wait until it ends."""
        code = self._join()
        out = Path(f"{self.log}.out")
        return Ended(code, out.read_text(), self.log.read_text(), time.monotonic() - self.begun)

    def _join(self) -> int:
        if isinstance(self.process, subprocess.Popen):
            return self.process.wait(PATIENCE_SECONDS)
        self.process.join(PATIENCE_SECONDS)
        assert self.process.exitcode is not None, f"it runs for ever:\n{self.log.read_text()}"
        return int(self.process.exitcode)


@dataclass
class Tally:
    """How many faults of each kind were brought about, and of how many everything came out as it must."""

    injected: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, fault: str) -> Iterator[None]:
        """Count one fault; what does not come out right is told by ``judge``, so that the others are tried too."""
        self.injected[fault] += 1
        self.held[fault] += 0
        try:
            yield
        except (AssertionError, OSError, ValueError, RuntimeError) as error:
            self.wrong.append(f"{fault}, number {self.injected[fault]}: {error}")
        else:
            self.held[fault] += 1
        if os.environ.get("QBENCH_FAULTS"):
            self._write(Path(os.environ["QBENCH_FAULTS"]))

    def judge(self) -> None:
        """Fail if anything since the last call did not come out right."""
        wrong, self.wrong = self.wrong, []
        assert not wrong, "\n".join(wrong)

    def _write(self, path: Path) -> None:
        from qbench.environment import environment

        found = environment("cpu")
        machine = {key: found[key] for key in ("system", "processor", "cores", "instructions", "versions")}
        rows = [{"fault": name, "injected": each, "held": self.held[name]} for name, each in self.injected.items()]
        content = {"date": datetime.now(UTC).date().isoformat(), "machine": machine, "faults": rows}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def counts() -> Tally:
    """The tally of all tests."""
    return Tally()


@pytest.fixture
def tally(counts: Tally) -> Iterator[Tally]:
    """The tally, which must be right at the end of the test."""
    yield counts
    counts.judge()


@pytest.fixture
def faulty(install: Callable[..., None], fake_plugins: Path) -> None:
    """The plugins that misbehave, installed, and the process in which files do."""
    install("faulty", ENTRY_POINTS, {path.name: path.read_text() for path in SOURCES.glob("*.py")})


@pytest.fixture
def every_kind(micro_suite: Callable[..., Path], faulty: None) -> Path:
    """A suite of the fake plugins that has stages of every kind."""
    return micro_suite(workloads=["converted"], methods=["corrected"], latency=True)


@pytest.fixture
def launch(workplace: Path, faulty: None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Launched]]:
    """Return a function that starts a command in a folder below the workplace, with a store of its own in it.

    ``fault`` is what goes wrong in it. ``shell`` starts it as a shell does, all imports included.
    """
    context = multiprocessing.get_context("forkserver")
    slow = ["diffusers"] if request.node.get_closest_marker("slow") else []  # the fake plugins do without it
    context.set_forkserver_preload(["torch", "pandas", "PIL.ImageDraw", "pytest", "qbench.cli.main", *slow])
    started: list[Launched] = []

    def start(folder: Path, *arguments: object, fault: Any = None, shell: bool = False) -> Launched:
        from faulty_process import run

        folder.mkdir(exist_ok=True)
        log = workplace / f"command-{len(started)}.log"
        environment = {"QBENCH_STORE": str(folder / "store")}
        words = [str(each) for each in arguments]
        if shell:
            command = [sys.executable, "-m", "qbench", *words]
            with log.open("w") as err, Path(f"{log}.out").open("w") as out:
                process: Any = subprocess.Popen(
                    command, cwd=folder, env=os.environ | environment, stdout=out, stderr=err, start_new_session=True
                )
        else:
            process = context.Process(target=run, args=(words, str(folder), environment, str(log), fault))
            process.start()
        started.append(Launched(process, log))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def tables(results: Path) -> dict[str, Any]:
    """Return everything in a suite's results that must not vary from run to run, by the name of its file.

    What a killed process was writing lies beside it for a minute, under a name of its own.
    """
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        if path.is_dir() or name in VARYING or re.fullmatch(r"\..*\.\d+", path.name):
            continue
        if path.parent.name == "records":
            record = read_record(path)
            stages = [cost.model_copy(update={"seconds": 0.0, "peak_memory_mb": 0.0}) for cost in record.stages]
            found[name] = record.model_copy(update={"stages": stages, "git": None, "latency": record.latency is None})
        else:
            found[name] = path.read_bytes()
    return found


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, str]:
    """Return what is in one and not the same in the other, by name."""
    return {
        name: f"{str(found.get(name))[:200]} in place of {str(wanted.get(name))[:200]}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    }


@dataclass(frozen=True)
class Laboratory:
    """A suite, what it leaves where nothing goes wrong, and how to tell."""

    suite: Path
    name: str
    launch: Callable[..., Launched]
    call: Callable[..., Any]
    stages: dict[str, Stage]
    alone: Path
    seconds: float

    def run(self, folder: Path, *arguments: object, **keywords: Any) -> Launched:
        """Start the suite in a folder."""
        return self.launch(folder, "run", self.suite, *arguments, **keywords)

    def run_here(self, folder: Path, *arguments: object) -> Ended:
        """Run the suite in a folder, in this process, which is quicker; also ``check``."""
        command, *options = arguments or ("run",)
        places = ["--results", folder / "results", *(["--store", folder / "store"] if command == "run" else [])]
        answer = self.call(command, self.suite, *places, *options)
        return Ended(answer.code, answer.out, answer.err, 0.0)

    def assert_sound(self, folder: Path) -> None:
        """Nothing in a store is half-valid, and nobody has a claim in it."""
        store = Store(folder / "store")
        assert verify(store).damaged == ()
        assert [path for path in (store.root / "artefacts").glob("*/*") if not (path / "manifest.json").is_file()] == []
        for lock in (store.root / "locks").glob("*.lock"):
            with store.claim(lock.stem) as mine:
                assert mine, f"{lock} is still held"

    def assert_finished(self, ended: Ended, folder: Path, code: int = 0) -> None:
        """A command has left what an uninterrupted one leaves, computed nothing twice, and is done."""
        assert ended.code == code, ended.err
        assert "Traceback" not in ended.err, ended.err
        assert "waiting for another process" not in ended.err
        assert len(ended.computed) == len(set(ended.computed))
        results = folder / "results" / self.name
        assert differences(tables(results), tables(self.alone / "results" / self.name)) == {}
        left = [path.name for path in (folder / "store" / "pending").iterdir() if not path.name.startswith("probe-")]
        assert left == []
        self.assert_sound(folder)

    def of_kind(self, kind: str) -> list[Stage]:
        """The stages of a kind, in the order of the plan."""
        return [stage for stage in self.stages.values() if stage.kind == kind]

    @property
    def kinds(self) -> list[str]:
        """The kinds of all stages, in the order of the plan."""
        return list(dict.fromkeys(stage.kind for stage in self.stages.values()))

    def behind(self, stage: Stage) -> list[Stage]:
        """The stages that need one, directly or not."""
        found: dict[str, Stage] = {}
        for each in self.stages.values():
            if any(given is stage or given.digest in {stage.digest, *found} for given in each.inputs().values()):
                found[each.digest] = each
        return list(found.values())


@pytest.fixture
def laboratory(
    launch: Callable[..., Launched], qbench: Callable[..., Any], workplace: Path, faulty: None
) -> Callable[..., Laboratory]:
    """Return a function that runs a suite once without a fault, and gives what to compare with."""

    def make(suite: Path | str, code: int = 0) -> Laboratory:
        path = find_suite(str(suite))
        loaded = load_suite(path)
        alone = workplace / f"alone-{loaded.name}"
        ended = launch(alone, "run", path).wait()
        made = Laboratory(path, loaded.name, launch, qbench, make_plan(loaded).stages, alone, ended.seconds)
        made.assert_finished(ended, alone, code)
        return made

    return make
