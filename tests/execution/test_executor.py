"""Who may be asked to compute a plan, and what is refused before any work."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import PluginError, QbenchError
from qbench.execution.executor import ALONE, Crew, find_executor
from qbench.execution.inline import Inline
from qbench.execution.ray import RayExecutor
from qbench.stages.stage import Runtime

CPU = Runtime("cpu")
Refused = Callable[..., str]


@pytest.fixture
def refused(qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path) -> Refused:
    """Return what the command says that does not run, and see to it that nothing was done."""

    def refuse(*options: object) -> str:
        answer = qbench("run", micro_suite(), *options)
        assert (answer.code, answer.out) == (1, "")
        assert not (workplace / "results").exists()
        assert answer.err.startswith("qbench: ")
        assert answer.err.count("\n") == 1
        return str(answer.err.removeprefix("qbench: "))

    return refuse


def test_both_come_by_their_names():
    assert find_executor("inline", CPU, ALONE) is Inline
    pytest.importorskip("ray")
    assert find_executor("ray", CPU, ALONE) is RayExecutor


def test_an_unknown_one(refused: Refused):
    assert "did you mean 'ray'?" in refused("--executor", "rya")


def test_one_that_is_no_executor(install: Callable[..., None]):
    install("odd", "[qbench.executors]\nodd = odd_executor:Odd\n", {"odd_executor.py": "class Odd: pass\n"})
    with pytest.raises(PluginError, match="does not derive from qbench"):
        find_executor("odd", CPU, ALONE)


def test_without_ray_it_says_how_to_get_it(refused: Refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = refused("--executor", "ray")
    assert words == "--executor ray needs Ray, which is not installed: pip install 'qbench[ray]'\n"


def test_an_address_is_for_ray(refused: Refused):
    assert "only --executor ray works on a cluster" in refused("--address", "10.0.0.1:6379")


@pytest.mark.parametrize("device", ["cuda:0,cuda:1", "cuda,cpu"])
def test_several_devices_are_for_ray(refused: Refused, device: str):
    assert refused("--device", device).endswith("one device at a time; --executor ray uses all that there are\n")


class TestRay:
    @pytest.fixture(autouse=True)
    def _ray(self) -> None:
        pytest.importorskip("ray", reason="the executor ray needs Ray")

    @pytest.mark.parametrize("device", ["cuda:0,cuda:1", "cuda:1", "gpu"])
    def test_it_gives_each_worker_its_device(self, refused: Refused, device: str):
        assert "each worker has a device of its own" in refused("--executor", "ray", "--device", device)

    def test_a_cluster_has_its_own_number_of_workers(self):
        with pytest.raises(QbenchError, match="say with --threads"):
            find_executor("ray", CPU, Crew(2, None, "auto"))
