"""The command line with Ray on this machine alone, started and ended with it."""

import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import QbenchError
from qbench.execution.executor import Crew
from qbench.execution.ray_cluster import connected
from qbench.suite import installed_suites

pytest.importorskip("ray", reason="the executor ray needs Ray")
TABLES = ("table.csv", "table.md", "curves.csv", "protocols.json", "media/curves.micro.svg")
STOPPED = "qbench: stopped; what is finished is kept, run the same command to go on"
FIRST_BATCH = "denoiser-12"
PATIENCE_SECONDS = 30.0


def tables(results: Path) -> dict[str, bytes]:
    return {name: (results / "micro" / name).read_bytes() for name in TABLES}


def parents() -> dict[int, int]:
    """Return the parent of every process that runs."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listing.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if state[0] != "Z"}


def descendants(pid: int) -> set[int]:
    """Return the processes that a process has started, and these."""
    known = parents()
    found = {pid}
    while more := {child for child, parent in known.items() if parent in found} - found:
        found |= more
    return found - {pid}


def test_ctrl_c_leaves_no_process_and_inline_goes_on(
    start: Callable[..., Any],
    qbench: Callable[..., Any],
    micro_suite: Callable[..., Path],
    uninterrupted: Path,
    workplace: Path,
):
    suite = micro_suite()
    options = ("--executor", "ray", "--processes", 2, "--threads", 1)
    running = start("run", suite, *options, pause=FIRST_BATCH)
    running.reach_places(
        lambda places: len({pid for pid, each in places if each == FIRST_BATCH}) == 2, "a batch in both workers"
    )
    started = descendants(running.process.pid)
    assert {pid for pid, _ in running.places()} < started
    assert running.interrupt() == 130
    told = [line for line in running.err.splitlines() if line and not line.startswith("[")]
    assert told == ["20 of 20 stages to compute", STOPPED]
    end = time.monotonic() + PATIENCE_SECONDS
    while left := started & parents().keys():
        assert time.monotonic() < end, f"still running: {left}"
        time.sleep(0.1)
    assert list((workplace / "store" / "pending").iterdir()) == []
    assert qbench("store", "verify", "--json").json["damaged"] == []
    finished = len(re.findall(r"^\[", running.err, flags=re.MULTILINE))
    assert finished > 0
    again = qbench("run", suite)
    assert again.code == 0
    assert again.err.startswith(f"{20 - finished} of 20 stages to compute")
    assert tables(workplace / "results") == tables(uninterrupted / "results")


def test_what_is_there_needs_no_cluster(qbench: Callable[..., Any], finished_suite: Path):
    begun = time.perf_counter()
    answer = qbench("run", finished_suite, "--executor", "ray", "--address", "127.0.0.1:1")
    assert answer.code == 0, answer.err
    assert "0 of 20 stages to compute" in answer.err
    assert time.perf_counter() - begun < 30


def documented() -> list[str]:
    """Return the runs that docs/cluster.md shows."""
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    return re.findall(r"^qbench run (.*)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("line", documented())
def test_documented_commands_are_understood(qbench: Callable[..., Any], workplace: Path, line: str):
    """As far as possible without their clusters: the suite is there, and so is every option; a small one is planned."""
    suite, *words = [word.replace("/shared", str(workplace)) for word in shlex.split(line)]
    assert suite in installed_suites()
    answer = qbench("run", "smoke", *words, "--dry-run")
    assert answer.code == 0, answer.err


class TestAddress:
    @pytest.fixture
    def silent_server(self) -> Iterator[str]:
        """Something that listens and is no Ray."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"127.0.0.1:{server.getsockname()[1]}"

    @pytest.fixture(autouse=True)
    def _unconnected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ray.is_initialized", lambda: False)

    def refused(self, address: str) -> str:
        with pytest.raises(QbenchError) as caught, connected(Crew(address=address)):
            pytest.fail("connected")
        assert str(caught.value).startswith(f"--address {address}: ")
        return str(caught.value)

    def test_nobody_listens(self):
        begun = time.perf_counter()
        assert "no Ray cluster answers there (Connection refused): start it with `ray start --head`" in self.refused(
            "127.0.0.1:1"
        )
        assert time.perf_counter() - begun < 10

    def test_somebody_else_listens(self, silent_server: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("qbench.execution.ray_cluster.CONNECT_SECONDS", 4.0)
        assert "no Ray cluster answers there: start it" in self.refused(silent_server)

    @pytest.mark.parametrize("address", ["here", "10.0.0.1", "10.0.0.1:port", ":6379"])
    def test_it_is_no_address(self, address: str):
        assert "write HOST:PORT, or auto" in self.refused(address)

    def test_rays_client_is_not_used(self):
        assert "give its HOST:PORT, or auto" in self.refused("ray://10.0.0.1:10001")
