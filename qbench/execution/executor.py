"""The contract of executors: who computes the stages of a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qbench import plugins
from qbench.errors import QbenchError
from qbench.execution.listener import Listener
from qbench.plan import CellPlan, Plan
from qbench.plugin import load_class
from qbench.stages.stage import Runtime
from qbench.store import Store

DEFAULT_EXECUTOR = "inline"


@dataclass(frozen=True)
class Crew:
    """Who works on a plan; nothing of it enters a digest.

    Attributes:
        processes: how many processes share the work; None leaves it to the executor.
        threads: of each worker that an executor starts elsewhere; here ``OMP_NUM_THREADS`` says it, which the command
            line sets. None leaves it to the executor.
        address: of a cluster that runs already; None where none is meant.
    """

    processes: int | None = None
    threads: int | None = None
    address: str | None = None


ALONE = Crew()
"""Nothing in particular was asked for."""


class Executor(ABC):
    """Computes what a plan misses, beside any other process that works on the same store.

    A stage that fails stops what depends on it and nothing else. One is made before records are written, and runs once.

    Args:
        plan: what is wanted.
        store: where artefacts are.
        runtime: device and batch size.
        listener: hears of everything.
        crew: who works on it.
    """

    @abstractmethod
    def __init__(
        self,
        plan: Plan,
        store: Store,
        runtime: Runtime,
        listener: Listener,
        crew: Crew = ALONE,
    ) -> None: ...

    @classmethod
    def check(cls, runtime: Runtime, crew: Crew) -> None:
        """Refuse what this executor cannot do, before any work.

        Raises:
            QbenchError: something that it needs is not installed, or options do not go together.
        """
        if crew.address is not None:
            raise QbenchError(f"--address {crew.address}: only --executor ray works on a cluster; add it")

    @property
    @abstractmethod
    def failures(self) -> Mapping[str, str]:
        """Reason by digest, for stages that failed and those that depend on them."""

    @abstractmethod
    def run(self, settled: Callable[[CellPlan], None]) -> None:
        """Work until every cell is complete or has failed.

        Args:
            settled: called with each cell, once, as soon as its fate is known.

        Raises:
            StoreError: the store gave out; what was finished is kept.
        """


def find_executor(name: str, runtime: Runtime, crew: Crew) -> type[Executor]:
    """Return an executor that can do what is asked for.

    Raises:
        PluginError: nobody offers the name, or its import fails.
        QbenchError: it refuses, and says why.
    """
    found = load_class(plugins.EXECUTORS, name, Executor)
    found.check(runtime, crew)
    return found
