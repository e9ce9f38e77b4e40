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
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from qbench import plugins
from qbench.plugins import CATALOGUES, Catalogue
from qbench.stages.stage import Stage
from qbench.store import Manifest, Store

SOURCES = Path(__file__).parent / "fake_plugins"
ENTRY_POINTS = """\
[qbench.workloads]
micro = micro_plugins:Micro

[qbench.methods]
broken-import = micro_broken:Broken
corrected = micro_plugins:Corrected
dies = micro_plugins:Dies
entangled = micro_plugins:Entangled
exits = micro_plugins:Exits
four-only = micro_plugins:FourOnly
nan-grid = micro_plugins:NaNGrid
nan-output = micro_plugins:NaNOutput
other-round = micro_plugins:OtherRound
raises = micro_plugins:Raises
replacing = micro_plugins:Replacing
replacing-late = micro_plugins:ReplacingLate
round = micro_plugins:Round

[qbench.metrics]
micro-contrast = micro_plugins:MicroContrast
micro-distance = micro_plugins:MicroDistance
micro-nan = micro_plugins:NotANumber

[qbench.extractors]
micro-pool = micro_plugins:MicroPool

[qbench.layers]
micro-gone = micro_broken:Gone
micro-table = micro_layers:Table
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
    plugins._installed.cache_clear()
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
def install(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str, str, dict[str, str]], None]]:
    """Return a function that installs one more distribution: its name, entry points and modules by file name."""
    if "fake_plugins" in request.fixturenames:  # paths are put back as they were found: the first to come goes last
        request.getfixturevalue("fake_plugins")
    with ExitStack() as stack:

        def install_one(name: str, entry_points: str, modules: dict[str, str]) -> None:
            folder = tmp_path / f"site-{name}"
            folder.mkdir()
            for file_name, source in modules.items():
                (folder / file_name).write_text(source)
            write_distribution(folder, name, entry_points)
            stack.enter_context(installed(folder))

        yield install_one


@pytest.fixture(scope="session", autouse=True)
def own_downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is fetched, and what is remembered of files, stays within the tests."""
    with pytest.MonkeyPatch.context() as context:
        context.setenv("QBENCH_DOWNLOADS", str(tmp_path_factory.mktemp("downloads")))
        yield


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with a store of its own in ``store``; results go to ``results``."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QBENCH_STORE", str(folder / "store"))
    monkeypatch.setenv("QBENCH_DOWNLOADS", str(folder / "downloads"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in place of all that files are fetched to: ``downloads``, ``torch`` and ``hub``."""
    monkeypatch.setenv("QBENCH_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("qbench.workloads.download.PAUSE_SECONDS", 0.0)
    return tmp_path


@pytest.fixture
def server(caches: Path, fake_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server of files on the loopback, which is Hugging Face's hub too; see ``micro_server``."""
    from micro_server import serving

    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


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
    trace: Path

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

    def places(self) -> list[tuple[int, str]]:
        """The places of the fake plugins that it and its companions have reached, each after a process's id."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [(int(line.partition(" ")[0]), line.partition(" ")[2]) for line in lines]

    def reach_places(self, happened: Callable[[list[tuple[int, str]]], bool], what: str) -> None:
        """Wait until it and its companions have reached some places."""
        self._wait_for(lambda: happened(self.places()), what)

    def group(self) -> set[int]:
        """It and whatever it has started, as far as they run."""
        listing = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
        rows = [line.split() for line in listing.stdout.splitlines()]
        return {int(pid) for pid, group, state in rows if int(group) == self.process.pid and state[0] != "Z"}

    def leave_nothing_running(self) -> None:
        """Wait until nothing runs that it has started."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.group():
            assert time.monotonic() < end, f"still running after {PATIENCE_SECONDS} s: {self.group()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it as ``kill -9`` does; it may have ended already."""
        self.process.kill()
        assert self.wait() in (-signal.SIGKILL, 0)

    def interrupt(self) -> int:
        """Press Ctrl-C, which everything that it has started hears too, and return its exit code."""
        assert self.process.pid is not None
        os.killpg(self.process.pid, signal.SIGINT)
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
        running_log, marker, trace = (workplace / f"process-{number}.{each}" for each in ("log", "marker", "trace"))
        environment = {
            "QBENCH_STORE": os.environ["QBENCH_STORE"],
            "MICRO_PAUSE": pause,
            "MICRO_MARKER": str(marker),
            "MICRO_TRACE": str(trace),
        }
        words = [str(each) for each in arguments]
        process = context.Process(target=run, args=(words, str(workplace), environment, str(running_log)))
        process.start()
        started.append(Running(process, running_log, marker, trace))
        return started[-1]

    yield start_one
    for each in started:
        assert each.process.pid is not None
        each.process.kill()
        with suppress(ProcessLookupError):  # nothing is left of what it started
            os.killpg(each.process.pid, signal.SIGKILL)
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
