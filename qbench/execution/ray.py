"""The executor for several devices or machines: each stage is a Ray task, and this process keeps the graph."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from qbench.errors import QbenchError
from qbench.execution.agenda import Agenda
from qbench.execution.executor import ALONE, Crew, Executor
from qbench.execution.limit import out_of_time
from qbench.execution.listener import Listener
from qbench.execution.outcome import Appeared, Busy, Computed, Failed, Outcome
from qbench.execution.ray_cluster import Cluster, agreed, alive_nodes, connected, installed_ray, runtime_env
from qbench.execution.ray_needs import Needs, Node, choose, known_peaks, needs_of
from qbench.execution.ray_worker import Terms, compute, look_again, wait_until_seen
from qbench.plan import CellPlan, Plan
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store

POLL_SECONDS = 0.2
"""How long one wait for Ray may take; Ctrl-C is heard between two of them."""
LOOK_AGAIN_SECONDS = 1.0
"""How long a stage that another process computes is left alone, and for how long a list of nodes is believed."""
END_SECONDS = 5.0
"""How long cancelled stages may take to clean up before their processes are killed."""
DEATHS = 2
"""So many workers may die of a stage: the second one is not chance."""


@dataclass(frozen=True)
class _Task:
    """A stage that is being computed, and where."""

    stage: Stage
    node: Node
    needs: Needs


class RayExecutor(Executor):
    """Hands ready stages to the nodes of a Ray cluster, as many at a time as these hold.

    A stage whose worker dies is handed out once more, to another node if there is one. What a stage itself raises is
    its failure at once, and so is the end of its time. Artefacts go through the store, which all nodes see; through Ray
    go only descriptions.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        runtime: Runtime,
        listener: Listener,
        crew: Crew = ALONE,
    ) -> None:
        self._plan = plan
        self._store = store
        self._runtime = runtime
        self._listener = listener
        self._crew = crew
        self._agenda = Agenda(plan, store, listener)
        self._tasks: dict[Any, _Task] = {}
        self._not_before: dict[str, float] = {}
        self._deaths: Counter[str] = Counter()
        self._avoided: dict[str, frozenset[str]] = {}
        self._nodes: list[Node] = []
        self._nodes_seen = 0.0

    @classmethod
    def check(cls, runtime: Runtime, crew: Crew) -> None:
        """Refuse to work without Ray, on one particular device, or with options that contradict each other."""
        installed_ray()
        if crew.address is not None and crew.processes is not None:
            raise QbenchError(
                f"--address {crew.address} --processes {crew.processes}: a cluster has as many workers as its "
                "processors hold; say with --threads how many each of them takes"
            )
        if runtime.device not in ("auto", "cpu", "cuda", "mps"):
            raise QbenchError(
                f"--device {runtime.device}: with --executor ray each worker has a device of its own; "
                "use auto, cpu or cuda"
            )

    @property
    def failures(self) -> Mapping[str, str]:
        """Reason by digest, for stages that failed and those that depend on them."""
        return self._agenda.failures

    def run(self, settled: Callable[[CellPlan], None]) -> None:
        """Work until every cell is complete or has failed."""
        self._agenda.announce()
        self._agenda.settle(settled)
        if not self._agenda.to_do:
            return
        with connected(self._crew) as cluster:
            self._runtime = replace(self._runtime, device=self._device())
            with agreed(self._plan, self._store, cluster.threads) as terms:
                try:
                    self._work(cluster, terms, settled)
                except BaseException:
                    self._cancel()
                    raise

    def _device(self) -> str:
        """Return what to compute on: accelerators if the cluster has any."""
        has_gpus = any(node.gpus for node in self._alive())
        if self._runtime.device == "auto":
            return "cuda" if has_gpus else ("auto" if sys.platform == "darwin" else "cpu")
        if self._runtime.device == "cuda" and not has_gpus:
            raise QbenchError("--device cuda: the cluster has no accelerators; `ray status` lists what it has")
        return self._runtime.device

    def _work(self, cluster: Cluster, terms: Terms, settled: Callable[[CellPlan], None]) -> None:
        ray = installed_ray()
        peaks = known_peaks(self._store)
        task = ray.remote(max_retries=0, max_calls=0)(compute)

        def needs(stage: Stage) -> Needs:
            return needs_of(stage, terms.threads, self._runtime.device == "cuda", peaks, self._alive())

        most = max(map(needs, self._agenda.to_do.values()), key=lambda each: (each.gpus, each.cpus))
        places = sum(node.places(most) for node in self._alive())
        self._listener.joined(min(places, cluster.limit or places))
        while self._agenda.to_do:
            self._hand_out(task, terms, needs, cluster.limit)
            if self._tasks:
                done, _ = ray.wait(list(self._tasks), timeout=POLL_SECONDS)
            else:
                self._listener.waiting(self._agenda.ready()[0])
                time.sleep(POLL_SECONDS)
                continue
            changed = [self._take(each) for each in done]
            if any(changed):
                self._hand_out(task, terms, needs, cluster.limit)  # first, as records and pictures take their time
                self._agenda.settle(settled)

    def _hand_out(self, task: Any, terms: Terms, needs: Callable[[Stage], Needs], limit: int | None) -> None:
        """Give every ready stage to a node, as far as there is room."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray = installed_ray()
        at_work = {each.stage.digest for each in self._tasks.values()}
        now = time.monotonic()
        for stage in self._agenda.ready():
            if limit is not None and len(self._tasks) >= limit:
                return
            if stage.digest in at_work or self._not_before.get(stage.digest, 0.0) > now:
                continue
            if self._store.has(stage.kind, stage.digest):
                self._agenda.note(stage, Appeared())
                continue
            wanted = needs(stage)
            node = choose(wanted, self._alive(), self._used(), self._avoided.get(stage.digest, frozenset()))
            if node is None:
                if not any(each.holds(wanted) for each in self._alive()):
                    raise QbenchError(_nowhere(stage, wanted))
                continue
            runtime = self._runtime
            if not wanted.gpus and runtime.device == "cuda":
                runtime = replace(runtime, device="cpu")
            reference = task.options(
                num_cpus=wanted.cpus,
                num_gpus=wanted.gpus,
                memory=wanted.memory or None,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=True),
                runtime_env=runtime_env(terms.threads),
            ).remote(terms, [ray.put(stage)], runtime)
            self._tasks[reference] = _Task(stage, node, wanted)
            self._listener.started(stage)

    def _take(self, reference: Any) -> bool:
        """Draw the consequences of a task that has ended; return whether anything changed."""
        task = self._tasks.pop(reference)
        outcome = self._outcome(reference, task)
        if isinstance(outcome, Busy):
            self._not_before[task.stage.digest] = time.monotonic() + LOOK_AGAIN_SECONDS
        if isinstance(outcome, Computed | Appeared):
            wait_until_seen(self._store, [task.stage])
        return outcome is not None and self._agenda.note(task.stage, outcome)

    def _outcome(self, reference: Any, task: _Task) -> Outcome | None:
        """Return what came of a task; None if its worker died for the first time."""
        from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

        try:
            outcome: Outcome = installed_ray().get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, QbenchError):
                raise error.cause from None
            return Failed(f"{type(error.cause).__name__}: {error.cause}")
        except RayError as error:
            self._nodes_seen = 0.0
            self._store.sweep(task.stage.digest)
            late = self._out_of_time(task.stage)
            if late is not None:
                return late
            digest = task.stage.digest
            self._deaths[digest] += 1
            self._avoided[digest] = self._avoided.get(digest, frozenset()) | {task.node.id}
            # No reason, which records keep, says where a machine is.
            self._listener.noted(task.stage, f"its worker died on {task.node.name}")
            if self._deaths[digest] < DEATHS:
                return None
            if isinstance(error, OutOfMemoryError):
                return Failed(
                    f"Ray ended its worker for want of memory, {DEATHS} times: "
                    "fewer workers, or a smaller --batch-size, need less"
                )
            return Failed(
                f"its worker died, {DEATHS} times: a crash in native code "
                "or a lack of memory; `--executor inline` shows what happens"
            )
        return outcome

    def _out_of_time(self, stage: Stage) -> Failed | None:
        """Return the failure of a stage whose worker has died, if its time was over; Ray replaces the worker."""
        if self._runtime.stage_limit is not None:
            look_again(self._store.traceback_path(stage.kind, stage.digest))
        return out_of_time(stage, self._store, self._runtime.stage_limit)

    def _used(self) -> dict[str, Needs]:
        used: dict[str, Needs] = {}
        for each in self._tasks.values():
            used[each.node.id] = used.get(each.node.id, Needs()) + each.needs
        return used

    def _alive(self) -> list[Node]:
        """Return the nodes that are alive, as of a moment ago."""
        if time.monotonic() - self._nodes_seen > LOOK_AGAIN_SECONDS:
            self._nodes, self._nodes_seen = alive_nodes(), time.monotonic()
        return self._nodes

    def _cancel(self) -> None:
        """Stop whatever is being computed; a stage that does not stop by itself is killed with its process."""
        ray = installed_ray()
        for force in (False, True):
            for reference in self._tasks:
                ray.cancel(reference, force=force)
            if not self._tasks:
                return
            done, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=END_SECONDS)
            for reference in done:
                del self._tasks[reference]


def _nowhere(stage: Stage, needs: Needs) -> str:
    asked = f"{needs.cpus:g} processors" + (f" and {needs.gpus:g} accelerator" if needs.gpus else "")
    return (
        f"no node of the cluster has {asked}, which {stage.kind} needs: fewer --threads need fewer processors; "
        "what is finished is kept"
    )
