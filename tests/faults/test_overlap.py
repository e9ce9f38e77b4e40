"""Two runs at once, of suites that have cells in common, in one store: each stage is computed by one of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from qbench.store import Store
from qbench.suite import find_suite

TIMES = 3


def assert_shared(both: tuple[Any, Any], folder: Path) -> None:
    """Run two suites at once; nothing is computed twice, nothing is damaged, and the tables are those of each alone."""
    started = [
        each.launch(folder, "run", each.suite, "--results", f"results-{each.name}", "--store", "store") for each in both
    ]
    ended = [each.wait() for each in started]
    assert [each.code for each in ended] == [0, 0], ended[0].err + ended[1].err
    computed = [line for each in ended for line in each.computed]
    stages = both[0].stages | both[1].stages
    assert len(computed) == len(set(computed)) == len(stages)
    assert 0 < len(both[0].stages.keys() & both[1].stages.keys()) < len(stages)
    store = Store(folder / "store")
    assert all(store.has(stage.kind, stage.digest) for stage in stages.values())
    for each in both:
        (folder / "results" / each.name).parent.mkdir(exist_ok=True)
        (folder / f"results-{each.name}" / each.name).rename(folder / "results" / each.name)
        again = each.run_here(folder)
        assert again.computed == []
        each.assert_finished(again, folder)


def test_small_suites(
    laboratory: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path, tally: Any
) -> None:
    first = micro_suite(name="first", metrics=["mse-to-fp"], bits=["W4A32"])
    second = micro_suite("second.yaml", name="second", metrics=["mse-to-fp"], bits=["W4A32", "W8A32"])
    with tally.of("two runs at once, of overlapping small suites in one store"):
        assert_shared((laboratory(first), laboratory(second)), workplace / "shared")


@pytest.mark.slow
def test_the_smoke_suite_and_one_that_overlaps_it(laboratory: Callable[..., Any], workplace: Path, tally: Any) -> None:
    other = yaml.safe_load(find_suite("smoke").read_text()) | {"name": "other", "bits": ["W4A8", "W8A8"]}
    (workplace / "other.yaml").write_text(yaml.safe_dump(other))
    both = (laboratory("smoke"), laboratory(workplace / "other.yaml"))
    for number in range(TIMES):
        with tally.of("two runs at once, of the smoke suite and one that overlaps it in one store"):
            assert_shared(both, workplace / f"shared-{number}")
