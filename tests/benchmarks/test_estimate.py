"""What `qbench plan` says after one cell of the kind must be what the rest takes, within a factor of two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from qbench.plan import make_plan
from qbench.store import Store
from qbench.suite import load_suite

ON_TINY_DDIM: dict[str, Any] = {
    "workloads": ["tiny-ddim"],
    "methods": [{"name": "linear", "preset": "fast"}, {"name": "squant", "preset": "fast"}],
    "bits": ["W8A8", "W4A8"],
    "metrics": ["fd-fashion", "mse-to-fp"],
    "samples": 250,
    "steps": 10,
    "boundary_bits": 8,
}


def test_the_rest_of_a_table_over_what_was_estimated(
    benchmark: BenchmarkFixture,
    judged: Callable[..., bool],
    qbench: Callable[..., Any],
    micro_suite: Callable[..., Path],
    workplace: Path,
) -> None:
    suite = micro_suite(**({"methods": ["round", "other-round"]} if benchmark.disabled else ON_TINY_DDIM))
    assert qbench("run", suite, "--only", "bits=W4A8").code == 0
    missing = make_plan(load_suite(suite)).missing(Store(workplace / "store"))
    estimated = qbench("plan", suite, "--json").json["estimate"]["seconds"]
    assert qbench("run", suite).code == 0
    store = Store(workplace / "store")
    took = sum(store.manifest(stage.kind, stage.digest).seconds for stage in missing.values())
    compared = "the estimate for the rest of a table over what it takes, or the other way round"
    assert judged(max(estimated / took, took / estimated), 2.0, compared)
