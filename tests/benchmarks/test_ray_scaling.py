"""Two workers must sample nearly twice as fast as one, once they are warm, and the same images to the byte."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import yaml
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.execution.executor import Crew
from qbench.execution.listener import Listener
from qbench.execution.ray import RayExecutor
from qbench.plan import Plan, make_plan
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store
from qbench.suite import load_suite

SHARDS = 8
SHARD_SIZE = 250
ROUNDS = 5
AT_LEAST = 1.7


class Stopwatch(Listener):
    """Takes the time from the first stage's start to the last one's end, without that for starting Ray."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self.seconds = 0.0

    def started(self, stage: Stage) -> None:
        self._begun = self._begun or time.perf_counter()

    def finished(self, stage: Stage, seconds: float) -> None:
        assert self._begun is not None
        self.seconds = time.perf_counter() - self._begun


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[int], Plan]:
    """Return a maker of plans: full precision of the tiny pixel model, from some seed."""

    def make(seed: int) -> Plan:
        content = {
            "name": "scaling",
            "workloads": ["tiny-ddim"],
            "methods": ["linear"],
            "bits": ["W4A32"],
            "metrics": ["fd-fashion"],
            "samples": SHARDS * SHARD_SIZE,
            "steps": 2,
            "seeds": [seed],
        }
        path = tmp_path / f"scaling-{seed}.yaml"
        path.write_text(yaml.safe_dump(content))
        return Plan(make_plan(load_suite(path)).cells[:1])

    return make


def images(store: Store) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in store.root.glob("artefacts/sample/*/images.npy")}


def test_two_workers_against_one(
    benchmark: BenchmarkFixture, judged: Callable[..., bool], plan: Callable[[int], Plan], tmp_path: Path
) -> None:
    if benchmark.disabled:
        pytest.skip("it measures only; tests/execution/test_ray.py looks at what is computed")
    pytest.importorskip("ray", reason="the executor ray needs Ray")
    from qbench.execution.ray_cluster import connected

    stores = {processes: Store(tmp_path / f"store-{processes}") for processes in (1, 2)}

    def seconds(processes: int, seed: int) -> float:
        stopwatch = Stopwatch()
        executor = RayExecutor(plan(seed), stores[processes], Runtime("cpu"), stopwatch, Crew(processes, 1))
        executor.run(lambda _: None)
        assert executor.failures == {}
        return stopwatch.seconds

    with connected(Crew(2, 1)):  # which the executors find, so that workers outlive each of them
        for processes in (2, 1):
            seconds(processes, seed=0)
        ratios = [seconds(1, seed) / seconds(2, seed) for seed in range(1, 1 + ROUNDS)]
    print(f"in {ROUNDS} rounds: {', '.join(f'{each:.2f}' for each in ratios)}")
    assert len(images(stores[1])) == SHARDS * (1 + ROUNDS)
    assert images(stores[1]) == images(stores[2])
    assert judged(
        median(ratios),
        AT_LEAST,
        compared="the speed of sampling with two one-thread Ray workers over one's",
        bound="at least",
    )
