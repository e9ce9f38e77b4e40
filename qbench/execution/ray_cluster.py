"""Ray itself: started on this machine or connected to, quietly, and each node looked at before any work."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qbench.environment import versions
from qbench.errors import QbenchError
from qbench.execution.executor import Crew
from qbench.execution.ray_needs import Node
from qbench.execution.ray_worker import TOKEN, Terms, look_again, objection
from qbench.plan import Plan
from qbench.plugins import CATALOGUES, EXECUTORS
from qbench.secrets import is_secret
from qbench.store import Store

CONNECT_SECONDS = 20.0
"""How long a cluster may take to answer at its address."""
PROBE_SECONDS = 180.0
"""How long a node may take to start a process there and import what it needs, from a slow disk too."""
SEEN_SECONDS = 30.0
"""How long a node's answer in the store may stay unseen here."""
OBJECT_STORE_BYTES = 100_000_000
"""Of Ray's own store, which nothing goes through; it takes no less."""
HANDED_ON = ("QBENCH_", "HF_", "TORCH_HOME", "XDG_CACHE_HOME")
"""What environment variables begin with that say where files lie; every worker gets them."""


@dataclass(frozen=True)
class Cluster:
    """What there is to compute on.

    Attributes:
        threads: of each worker.
        limit: how many stages may be computed at a time; None leaves it to what each needs.
    """

    threads: int
    limit: int | None


def installed_ray() -> Any:
    """Return the package ray, told to be quiet.

    Raises:
        QbenchError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray would warn about otherwise
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers do the work, and no less willingly than inline would
    try:
        import ray
    except ImportError:
        raise QbenchError("--executor ray needs Ray, which is not installed: pip install 'qbench[ray]'") from None
    return ray


@contextmanager
def connected(crew: Crew) -> Iterator[Cluster]:
    """Start Ray on this machine, or connect to the cluster at an address, while the context lasts.

    A Ray that this process is connected to already is used as it is, and left alone.

    Raises:
        QbenchError: the cluster does not answer.
    """
    ray = installed_ray()
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "include_dashboard": False}
    if ray.is_initialized():
        yield _of_address(crew)
    elif crew.address is not None:
        _check_address(crew.address)
        try:
            ray.init(crew.address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise QbenchError(f"--address {crew.address}: Ray cannot connect to it ({reason})") from error
        try:
            yield _of_address(crew)
        finally:
            ray.shutdown()
    else:
        cores = os.cpu_count() or 1
        # Sockets lie in it, whose paths must be short.
        place = "/tmp" if Path("/tmp").is_dir() else None
        with tempfile.TemporaryDirectory(prefix="qbench-ray-", dir=place, ignore_cleanup_errors=True) as folder:
            try:
                ray.init(
                    "local",
                    num_cpus=_local_cpus(crew, cores),
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=folder,
                    **quiet,
                )
                yield _of_machine(crew, cores)
            finally:
                ray.shutdown()


def alive_nodes() -> list[Node]:
    """Return the nodes that are alive."""
    return [
        Node(
            id=each["NodeID"],
            name=f"{each['NodeManagerHostname']} ({each['NodeManagerAddress']})",
            cpus=each["Resources"].get("CPU", 0.0),
            gpus=each["Resources"].get("GPU", 0.0),
            memory=each["Resources"].get("memory", 0.0),
        )
        for each in installed_ray().nodes()
        if each["Alive"]
    ]


def runtime_env(threads: int) -> dict[str, Any]:
    """Return what each worker process is started with."""
    named = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    handed_on = {name: value for name, value in named.items() if not is_secret(name)}  # Ray writes these into its logs
    return {
        "env_vars": handed_on
        | {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # see ray_worker.py, which names the device
        }
    }


@contextmanager
def agreed(plan: Plan, store: Store, threads: int) -> Iterator[Terms]:
    """Look at every node, and give what all of them have in common while the context lasts.

    Raises:
        QbenchError: a node does not see the store, or has not installed what this machine has.
    """
    name = f"ray-{uuid.uuid4().hex}"
    with store.claim(name), store.pending(name) as meeting:
        terms = _terms(plan, store, meeting.resolve(), threads)
        (meeting / TOKEN).write_text(terms.token, encoding="utf-8")
        _probe(terms, alive_nodes())
        yield terms


def _probe(terms: Terms, nodes: Sequence[Node]) -> None:
    ray = installed_ray()
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(max_retries=0, num_cpus=0)(objection)
    answers = {
        node: probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            runtime_env=runtime_env(terms.threads),
        ).remote(terms, node.id)
        for node in nodes
    }
    for node, answer in answers.items():
        try:
            problem = ray.get(answer, timeout=PROBE_SECONDS)
        except GetTimeoutError:
            problem = f"it does not answer within {PROBE_SECONDS:.0f} s"
        except RayError as error:
            reason = " ".join(str(getattr(error, "cause", error)).split())
            problem = f"it cannot start qbench ({reason}): install on every node what {terms.driver} has"
        if problem is None and not _is_seen(terms.meeting / node.id):
            problem = f"what it writes into the store {terms.store} does not appear on {terms.driver}"
        if problem is not None:
            raise QbenchError(f"the node {node.name} cannot work on this run: {problem}")


def _is_seen(path: Path) -> bool:
    end = time.monotonic() + SEEN_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            return False
        look_again(path)
        time.sleep(0.1)
    return True


def _terms(plan: Plan, store: Store, meeting: Path, threads: int) -> Terms:
    entries = {
        entry
        for catalogue in CATALOGUES
        if catalogue is not EXECUTORS
        for entry in catalogue.entries()
        if entry.target.partition(":")[0] in _modules(plan)
    }
    return Terms(
        store=store.root.resolve(),
        meeting=meeting,
        token=uuid.uuid4().hex,
        driver=socket.gethostname(),
        versions=versions(),
        plugins={entry.package: entry.version for entry in entries if entry.package not in ("qbench", "unknown")},
        modules=tuple(sorted({entry.target.partition(":")[0] for entry in entries})),
        folder=Path.cwd(),
        threads=threads,
    )


def _modules(plan: Plan) -> set[str]:
    """Return the modules of the plugins that a plan is made of."""
    found = set()
    for planned in plan.cells:
        cell = planned.cell
        extractors = [getattr(shard, "extractor", None) for score in planned.scores.values() for shard in score.shards]
        for each in (cell.workload, cell.method, *cell.metrics, *extractors):
            if each is not None:
                found.add(each.entry.target.partition(":")[0])
    return found


def _check_address(address: str) -> None:
    """Find out whether a cluster answers; Ray itself would try for minutes, and say so all the time."""
    advice = "start it with `ray start --head`, or leave --address out to start Ray on this machine alone"
    if address.startswith("ray://"):
        raise QbenchError(
            f"--address {address}: qbench runs on a node of the cluster itself; give its HOST:PORT, or auto"
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise QbenchError(
                f"--address {address}: write HOST:PORT, or auto for a cluster that this machine is part of"
            )
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS / 4).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise QbenchError(f"--address {address}: no Ray cluster answers there ({reason}): {advice}") from error
    asked = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", *asked]
    try:
        healthy = subprocess.run(command, capture_output=True, timeout=CONNECT_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        healthy = False
    if not healthy:
        raise QbenchError(f"--address {address}: no Ray cluster answers there: {advice}")


def _local_cpus(crew: Crew, cores: int) -> int:
    threads = crew.threads or (max(1, cores // crew.processes) if crew.processes else 1)
    return max(threads, crew.processes * threads if crew.processes else cores)


def _of_machine(crew: Crew, cores: int) -> Cluster:
    """Return what a Ray that was started here is: so many processes, by default one for each accelerator."""
    gpus = sum(int(node.gpus) for node in alive_nodes())
    processes = crew.processes or max(1, gpus)
    return Cluster(crew.threads or max(1, cores // processes), processes)


def _of_address(crew: Crew) -> Cluster:
    """Return what a cluster is: by default one thread for each worker, or an accelerator's share of the processors."""
    shares = [int(node.cpus // node.gpus) for node in alive_nodes() if node.gpus]
    return Cluster(crew.threads or max(1, min(shares, default=1)), crew.processes)
