from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qbench.plugins import WORKLOADS
from qbench.stages.computing import compute
from qbench.stages.kept import Kept
from qbench.stages.quantized import Quantized
from qbench.stages.sample import FILE, Sample
from qbench.stages.stage import Runtime, Work
from qbench.workload import Workload


def load_nothing() -> Any:
    return object()


def test_the_last_one_is_kept_and_no_other() -> None:
    kept = Kept()
    first = kept.get("a", load_nothing)
    assert kept.get("a", load_nothing) is first
    assert kept.get("b", load_nothing) is not first
    assert kept.get("a", load_nothing) is not first


def test_the_last_one_is_let_go_before_the_next_is_loaded() -> None:
    import weakref

    class Model:
        pass

    kept = Kept()
    first = weakref.ref(kept.get("a", Model))  # type: ignore[arg-type]

    def load() -> Any:
        assert first() is None
        return Model()

    kept.get("b", load)


@pytest.mark.parametrize(
    ("kind", "stays"), [("sample", True), ("features", True), ("score", True), ("weights", False), ("curve", False)]
)
def test_a_stage_that_has_no_use_for_it_finds_the_memory_free(kind: str, stays: bool) -> None:
    kept = Kept()
    first = kept.get("a", load_nothing)
    kept.begin(kind)
    assert (kept.get("a", load_nothing) is first) is stays


@pytest.fixture
def workload(fake_plugins: Path) -> Workload:
    workload = WORKLOADS.load("micro")
    assert issubclass(workload, Workload)
    return workload(WORKLOADS.entry("micro"), workload.settings_class())


@pytest.fixture
def loads(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """Grows with every time that the workload is loaded."""
    found: list[Workload] = []
    load = type(workload).load
    monkeypatch.setattr(type(workload), "load", lambda self: [found.append(self), load(self)][1])
    return found


@pytest.fixture
def shard(workload: Workload, tmp_path: Path) -> Callable[..., Any]:
    def sample(start: int, kept: Kept, seed: int = 0, **inputs: Any) -> Any:
        folder = tmp_path / f"{start}-{seed}-{id(kept)}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        work = Work(inputs, folder, Runtime("cpu"), lambda amount: None, kept=kept)
        compute(Sample(workload, seed, start, start + 4, Quantized()), work)
        return np.load(folder / FILE)

    return sample


def test_shards_of_one_cell_load_the_denoiser_once(shard: Callable[..., Any], loads: list[Workload]) -> None:
    kept = Kept()
    found = [shard(start, kept) for start in (0, 4, 8)]
    assert len(loads) == 1
    alone = [shard(start, Kept()) for start in (0, 4, 8)]
    np.testing.assert_array_equal(found, alone)


def test_another_artefact_is_another_denoiser(
    shard: Callable[..., Any], loads: list[Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qbench.stages.denoiser.load_workload", lambda workload, inputs: workload.load())
    kept = Kept()
    for content in ("one", "one", "other"):
        shard(0, kept, model=SimpleNamespace(manifest=SimpleNamespace(files={"model.safetensors": content})))
    assert len(loads) == 2
