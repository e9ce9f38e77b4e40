"""Weights of another layout: converted once, kept, and made again where they were spoiled."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.plan import make_plan
from qbench.suite import load_suite

Qbench = Callable[..., Any]
ENTRY_POINTS = "[qbench.workloads]\nforeign = foreign_workload:Foreign\n"
MODULE = '''\
"""The workload ``micro``, whose gain is in a file of another layout."""

import os
from hashlib import sha256
from pathlib import Path

from micro_plugins import Micro

from qbench.errors import DataError

CHECKPOINT = Path(os.environ["FOREIGN_CHECKPOINT"])


class Foreign(Micro):
    needs_conversion = True

    def weights(self):
        return {"checkpoint": sha256(CHECKPOINT.read_bytes()).hexdigest()}

    def load(self):
        raise AssertionError("it is loaded from what it was converted to")

    def convert(self, folder):
        (folder / "unet").mkdir()
        (folder / "unet" / "half-written").touch()
        text = CHECKPOINT.read_text()
        if "gain" not in text:
            raise DataError(f"the checkpoint {CHECKPOINT} says no gain")
        (folder / "unet" / "half-written").unlink()
        (folder / "unet" / "gain.txt").write_text(text.partition("=")[2])

    def load_converted(self, folder):
        return self.with_gain(float((folder / "unet" / "gain.txt").read_text()))
'''


@pytest.fixture
def checkpoint(workplace: Path) -> Path:
    found = workplace / "checkpoint"
    found.write_text("gain=1.5")
    return found


@pytest.fixture
def suite(
    checkpoint: Path, micro_suite: Callable[..., Path], install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A suite whose model has to be converted."""
    monkeypatch.setenv("FOREIGN_CHECKPOINT", str(checkpoint))
    monkeypatch.delitem(sys.modules, "foreign_workload", raising=False)
    install("foreign", ENTRY_POINTS, {"foreign_workload.py": MODULE})
    return micro_suite(workloads=["foreign"])


@pytest.fixture
def converted(suite: Path, qbench: Qbench, workplace: Path) -> Path:
    """What the conversion of a finished run left in the store."""
    answer = qbench("run", suite)
    assert answer.code == 0, answer.err
    return one(workplace)


def one(workplace: Path) -> Path:
    (found,) = (workplace / "store" / "artefacts" / "conversion").iterdir()
    return found


def figures(workplace: Path) -> dict[str, Any]:
    records = (workplace / "results" / "micro" / "records").glob("*.json")
    return {path.stem: json.loads(path.read_text())["figures"] for path in records}


def test_it_is_an_input_of_every_stage_that_loads_the_model(suite: Path):
    stages = make_plan(load_suite(suite)).stages
    conversions = [digest for digest, stage in stages.items() if stage.kind == "conversion"]
    assert len(conversions) == 1
    having = {stage.kind for stage in stages.values() if "model" in stage.inputs()}
    assert having == {"trajectory", "weights", "activations", "sample", "profile", "curve"}
    for stage in stages.values():
        if stage.kind in having:
            assert stage.inputs()["model"].digest == conversions[0]


def test_how_it_is_sampled_and_named_is_no_part_of_it(suite: Path, micro_suite: Callable[..., Path]):
    def conversions(path: Path) -> set[str]:
        return {digest for digest, stage in make_plan(load_suite(path)).stages.items() if stage.kind == "conversion"}

    two = [{"name": "foreign", "sampler": {"steps": 3}}, {"name": "foreign", "as": "other"}]
    assert conversions(micro_suite("two.yaml", workloads=two)) == conversions(suite)


def test_a_workload_that_needs_none_has_none(micro_suite: Callable[..., Path]):
    stages = make_plan(load_suite(micro_suite())).stages.values()
    assert all(stage.kind != "conversion" and "model" not in stage.inputs() for stage in stages)


def test_the_model_is_what_was_converted(
    converted: Path, qbench: Qbench, micro_suite: Callable[..., Path], workplace: Path
):
    assert sorted(path.name for path in converted.iterdir()) == ["manifest.json", "unet"]
    assert (converted / "unet" / "gain.txt").read_text() == "1.5"
    of_foreign = figures(workplace)
    assert qbench("run", micro_suite(workloads=[{"name": "micro", "settings": {"gain": 1.5}}])).code == 0
    for cell, figure in of_foreign.items():
        assert figures(workplace)[cell.replace("foreign", "micro")] == figure


def test_a_second_run_converts_nothing(converted: Path, qbench: Qbench, suite: Path, workplace: Path):
    before = converted.stat().st_mtime_ns
    answer = qbench("run", suite, "--set", "seeds=[1]")
    assert answer.code == 0, answer.err
    assert "conversion" not in answer.err
    assert one(workplace).stat().st_mtime_ns == before


def test_a_spoiled_conversion_is_set_aside_and_made_again(
    converted: Path, qbench: Qbench, suite: Path, workplace: Path
):
    (converted / "unet" / "gain.txt").write_text("2.5")
    answer = qbench("run", suite, "--set", "seeds=[1]")
    assert answer.code == 0, answer.err
    assert "gain.txt is not the file that was written" in answer.err
    assert (one(workplace) / "unet" / "gain.txt").read_text() == "1.5"
    assert len(list((workplace / "store" / "damaged").glob("conversion-*"))) == 1
    (one(workplace) / "unet" / "gain.txt").unlink()
    assert qbench("store", "verify").code == 1
    assert not list((workplace / "store" / "artefacts" / "conversion").iterdir())


def test_another_checkpoint_is_another_conversion(
    converted: Path, qbench: Qbench, suite: Path, checkpoint: Path, workplace: Path
):
    checkpoint.write_text("gain=0.5")
    assert qbench("run", suite).code == 0
    assert len(list((workplace / "store" / "artefacts" / "conversion").iterdir())) == 2


def test_one_that_fails_fails_its_cells_and_leaves_nothing(
    qbench: Qbench, suite: Path, checkpoint: Path, workplace: Path
):
    checkpoint.write_text("nothing")
    answer = qbench("run", suite)
    assert answer.code == 1
    assert answer.err.count(f"conversion: the checkpoint {checkpoint} says no gain") == 1
    store = workplace / "store"
    assert not (store / "artefacts" / "conversion").exists()
    assert not list((store / "pending").iterdir())
    records = (workplace / "results" / "micro" / "records").glob("*.json")
    reasons = {json.loads(path.read_text())["reason"] for path in records}
    assert all("says no gain" in reason for reason in reasons)
