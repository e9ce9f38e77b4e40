"""Fixtures for everything that runs suites: small fake plugins, and the command line in this process and others."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from qbench.identity import digest
from qbench.plugins import CATALOGUES, Catalogue
from qbench.records import Record, write_record
from qbench.stages.stage import Stage
from qbench.store import Manifest, Store

SOURCES = Path(__file__).parent / "fake_plugins"
ENTRY_POINTS = """\
[qbench.workloads]
micro = micro_plugins:Micro

[qbench.methods]
broken-import = micro_broken:Broken
entangled = micro_plugins:Entangled
exits = micro_plugins:Exits
four-only = micro_plugins:FourOnly
nan-grid = micro_plugins:NaNGrid
nan-output = micro_plugins:NaNOutput
other-round = micro_plugins:OtherRound
raises = micro_plugins:Raises
round = micro_plugins:Round

[qbench.metrics]
micro-contrast = micro_plugins:MicroContrast
micro-distance = micro_plugins:MicroDistance
micro-nan = micro_plugins:NotANumber

[qbench.extractors]
micro-pool = micro_plugins:MicroPool
"""
MICRO_SUITE: dict[str, Any] = {
    "name": "micro",
    "workloads": ["micro"],
    "methods": ["round"],
    "bits": ["W4A32", "W4A8"],
    "metrics": ["micro-distance", "mse-to-fp"],
    "samples": 12,
}
PATIENCE_SECONDS = 60.0
"""How long a test waits for another process before it fails."""


def write_distribution(folder: Path, name: str, entry_points: str) -> None:
    """Write the metadata of an installed package; its modules lie in the same folder."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [f"{path.relative_to(folder)},,{path.stat().st_size}" for path in files]
    (metadata / "RECORD").write_text("\n".join([*rows, f"{metadata.name}/RECORD,,"]) + "\n")


def _forget_entry_points() -> None:
    """Make the catalogues look again at what is installed."""
    for catalogue in CATALOGUES:
        for name, value in vars(Catalogue).items():
            if isinstance(value, cached_property):
                vars(catalogue).pop(name, None)


@contextmanager
def installed(*folders: Path) -> Iterator[None]:
    """Have the distributions in some folders installed, for this process and those it starts."""
    with pytest.MonkeyPatch.context() as context:
        inherited = os.environ.get("PYTHONPATH")
        paths = [*map(str, folders), *([inherited] if inherited else [])]
        context.setenv("PYTHONPATH", os.pathsep.join(paths))
        for folder in folders:
            context.syspath_prepend(folder)
        _forget_entry_points()
        yield
    _forget_entry_points()


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution ``microplugins``, as a package installer leaves it."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("site-packages")
    for source in SOURCES.glob("*.py"):
        shutil.copy(source, folder)
    save_file({"pooled.mean": np.full(4, 0.5), "pooled.cov": np.eye(4)}, folder / "reference.safetensors")
    write_distribution(folder, "microplugins", ENTRY_POINTS)
    return folder


@pytest.fixture
def fake_plugins(plugin_folder: Path) -> Iterator[Path]:
    """The fake plugins, installed while a test runs."""
    with installed(plugin_folder):
        yield plugin_folder


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Callable[[str, str, dict[str, str]], None]]:
    """Return a function that installs one more distribution: its name, entry points and modules by file name."""
    with ExitStack() as stack:

        def install_one(name: str, entry_points: str, modules: dict[str, str]) -> None:
            folder = tmp_path / f"site-{name}"
            folder.mkdir()
            for file_name, source in modules.items():
                (folder / file_name).write_text(source)
            write_distribution(folder, name, entry_points)
            stack.enter_context(installed(folder))

        yield install_one


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with a store of its own in ``store``; results go to ``results``."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QBENCH_STORE", str(folder / "store"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def micro_suite(workplace: Path, fake_plugins: Path) -> Callable[..., Path]:
    """Return a function that writes a suite file of the fake plugins; keywords replace its keys, None drops one."""

    def write(path: str = "micro.yaml", **changes: Any) -> Path:
        content = {key: value for key, value in (MICRO_SUITE | changes).items() if value is not None}
        file = workplace / path
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return write


@pytest.fixture(scope="session")
def uninterrupted(plugin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``store`` and ``results`` of the micro suite, run in a process that was started like any other."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "micro.yaml").write_text(yaml.safe_dump(MICRO_SUITE, sort_keys=False))
    command = [sys.executable, "-m", "qbench", "run", "micro.yaml"]
    inherited = os.environ.get("PYTHONPATH")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(plugin_folder), *([inherited] if inherited else [])]),
        "QBENCH_STORE": str(folder / "store"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def finished_suite(micro_suite: Callable[..., Path], uninterrupted: Path, workplace: Path) -> Path:
    """The micro suite, with a complete store and complete results beside it."""
    for name in ("store", "results"):
        shutil.copytree(uninterrupted / name, workplace / name)
    return micro_suite()


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


def _call(*arguments: object) -> Answer:
    from qbench.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as context, redirect_stdout(out), redirect_stderr(err):
        context.setattr(sys, "argv", ["qbench", *map(str, arguments)])
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code
        else:
            code = 0
    assert code is None or isinstance(code, int)
    return Answer(code or 0, out.getvalue(), err.getvalue())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Byte-for-byte equality is promised for one thread count."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def qbench(workplace: Path, one_thread: None) -> Callable[..., Answer]:
    """The command line, called in this process from its entry point on."""
    return _call


@dataclass(frozen=True)
class Running:
    """A command in a process of its own."""

    process: BaseProcess
    log: Path
    marker: Path

    @property
    def err(self) -> str:
        """What it has said on standard error so far."""
        return self.log.read_text() if self.log.exists() else ""

    def reach_pause(self) -> None:
        """Wait until it stops at the place that it was asked to stop at."""
        self._wait_for(self.marker.exists, "its place to pause")

    def reach_line(self, words: str) -> None:
        """Wait until it has said something on standard error."""
        self._wait_for(lambda: words in self.err, repr(words))

    def go_on(self) -> None:
        """Let it go on from its pause."""
        self.marker.unlink()

    def kill(self) -> None:
        """Kill it as ``kill -9`` does; it may have ended already."""
        self.process.kill()
        assert self.wait() in (-signal.SIGKILL, 0)

    def interrupt(self) -> int:
        """Press Ctrl-C and return its exit code."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Return its exit code."""
        self.process.join(PATIENCE_SECONDS)
        assert self.process.exitcode is not None, f"still running after {PATIENCE_SECONDS} s:\n{self.err}"
        return self.process.exitcode

    def _wait_for(self, happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert self.process.is_alive(), f"it ended before {what}:\n{self.err}"
            assert time.monotonic() < end, f"it did not reach {what}:\n{self.err}"
            time.sleep(0.01)


@pytest.fixture
def start(workplace: Path, fake_plugins: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a command in a process of its own, with torch imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pandas", "PIL.ImageDraw", "pytest", "qbench.cli.main"])
    started: list[Running] = []

    def start_one(*arguments: object, pause: str = "") -> Running:
        from micro_process import run

        number = len(started)
        running_log, marker = workplace / f"process-{number}.log", workplace / f"process-{number}.marker"
        environment = {
            "QBENCH_STORE": os.environ["QBENCH_STORE"],
            "MICRO_PAUSE": pause,
            "MICRO_MARKER": str(marker),
        }
        words = [str(each) for each in arguments]
        process = context.Process(target=run, args=(words, str(workplace), environment, str(running_log)))
        process.start()
        started.append(Running(process, running_log, marker))
        return started[-1]

    yield start_one
    for each in started:
        if each.process.is_alive():
            each.process.kill()
        each.process.join()
        each.process.close()


@pytest.fixture
def put_artefact() -> Callable[..., None]:
    """Return a function that puts an artefact in a store without computing it."""

    def put(store: Store, stage: Stage, seconds: float = 1.0, memory: float = 100.0) -> None:
        manifest = Manifest(stage.kind, stage.digest, stage.group, stage.description, {}, seconds, stage.work, memory)
        with store.claim(stage.digest), store.pending(stage.digest) as folder:
            store.publish(folder, manifest)

    return put


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Return a function that makes the record of a complete cell; keywords replace its values."""

    def make(label: str = "round", bits: str = "W4A8", position: int = 1, **changes: Any) -> Record:
        full = label == "full-precision"
        baseline = {
            "workload": {"name": "micro", "settings": {"sampler": {"name": "ddim", "steps": 4, "eta": 0.0}}},
            "method": None,
            "bits": "W32A32",
        }
        description = baseline if full else baseline | {"method": {"name": label}, "bits": bits}
        metric = {"title": "T", "direction": "lower", "protocol": "P", "paper": "", "description": {"metric": "m"}}
        difference = {} if full else {"delta": 0.25, "low": 0.125, "high": 0.375}
        values = {
            "suite": {"name": "micro", "title": "A title", "position": position},
            "workload": "micro",
            "method": None if full else label,
            "label": label,
            "bits": bits,
            "boundary_bits": None if full else 8,
            "seed": 0,
            "samples": 12,
            "status": "complete",
            "description": description,
            "digest": digest(changes.get("description", description)),
            "baseline": digest(baseline),
            "results": {
                name: digest({"of": name, "cell": description}) for name in ("profile", "distance", "mse-to-fp")
            },
            "metrics": {
                "distance": metric | {"against": "real images"},
                "mse-to-fp": metric | {"against": "full-precision images of the same noise"},
            },
            "figures": {
                "distance": {"value": 1.5, "samples": 12} | difference,
                "mse-to-fp": {"value": 0.0 if full else 0.25, "samples": 12} | difference,
            },
            "profile": {"size_mb": 0.5, "coverage_macs": 0.75, "coverage_parameters": 1.0, "left_out": []},
            "stages": [{"stage": "sample", "digest": "0" * 64, "seconds": 2.5, "peak_memory_mb": 100.0}],
            "environment": {"device": "cpu", "threads": 1},
        }
        return Record.model_validate(values | changes)

    return make


@pytest.fixture
def write_records(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes records into a suite's folder of ``results`` and returns that folder."""

    def write(*records: Record, suite: str = "micro") -> Path:
        folder = tmp_path / "results" / suite
        for record in records:
            name = f"{record.workload}.{record.label}.{record.bits}.s{record.seed}.json"
            write_record(record, folder / "records" / name)
        return folder

    return write
