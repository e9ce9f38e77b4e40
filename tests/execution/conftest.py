"""A Ray cluster of two nodes on this machine, one processor each, for all tests that need one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@dataclass
class TwoNodes:
    """The cluster.

    Attributes:
        ray: the package.
        cluster: its head never dies.
        second: the node beside the head.
    """

    ray: Any
    cluster: Any
    second: Any

    def of_second(self) -> set[int]:
        """Return the processes that work for the second node, all of them children of its raylet."""
        (raylet,) = self.second.all_processes["raylet"]
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        rows = [line.split() for line in listing.stdout.splitlines()]
        return {int(pid) for pid, parent in rows if int(parent) == raylet.process.pid}

    def kill_second(self) -> None:
        """Take the second node away with all its processes, as a power cut does."""
        workers = self.of_second()
        self.cluster.remove_node(self.second, allow_graceful=False)
        for pid in workers:  # they would end by themselves, but may finish something before
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def replace_second(self) -> None:
        """Give the cluster another second node."""
        self.second = self.cluster.add_node(**NODE)
        self.cluster.wait_for_nodes()


@pytest.fixture(scope="session")
def two_nodes(plugin_folder: Path) -> Iterator[TwoNodes]:
    """The cluster, with the fake plugins installed on it and this process connected to it."""
    pytest.importorskip("ray", reason="the executor ray needs Ray")
    from qbench.execution.ray_cluster import installed_ray

    ray = installed_ray()
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as context:
        inherited = os.environ.get("PYTHONPATH")
        context.setenv("PYTHONPATH", os.pathsep.join([str(plugin_folder), *([inherited] if inherited else [])]))
        context.setenv("OMP_NUM_THREADS", "1")
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
        nodes = TwoNodes(ray, cluster, None)
        nodes.replace_second()  # after this process is connected, which some releases of Ray do to any node here
    yield nodes
    ray.shutdown()
    cluster.shutdown()
