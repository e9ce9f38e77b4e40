"""Layers that a method replaces, from its weights to the images and the table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path) -> Run:
    """Return a function that runs the micro suite with some methods and returns its records by their cells' names."""
    import json

    def run_it(*methods: Any, code: int = 0) -> dict[str, Any]:
        answer = qbench("run", micro_suite(methods=list(methods), bits=["W4A32", "W4A4"]))
        assert answer.code == code, answer.err
        paths = (workplace / "results" / "micro" / "records").glob("*.json")
        return {path.name.split(".", 1)[1].removesuffix(".s0.json"): json.loads(path.read_text()) for path in paths}

    return run_it


def artefact(workplace: Path, record: Any, stage: str) -> Path:
    (found,) = [each["digest"] for each in record["stages"] if each["stage"] == stage]
    return workplace / "store" / "artefacts" / stage / str(found)


def test_tables_of_the_same_integers_give_the_same_images_and_coverage(run: Run, workplace: Path) -> None:
    records = run("round", "replacing")
    for bits in ("W4A32", "W4A4"):
        plain, replaced = records[f"round.{bits}"], records[f"replacing.{bits}"]
        images = [np.load(artefact(workplace, each, "sample") / "images.npy") for each in (plain, replaced)]
        assert np.array_equal(*images)
        for name in ("coverage_macs", "coverage_parameters", "left_out"):
            assert replaced["profile"][name] == plain["profile"][name]
        weights = artefact(workplace, replaced, "weights") / "weights.safetensors"
        assert replaced["profile"]["size_mb"] == pytest.approx(weights.stat().st_size / 1e6)


def test_replacing_layers_while_activations_are_quantized_is_refused(run: Run) -> None:
    records = run("round", "replacing-late", code=1)
    assert records["replacing-late.W4A32"]["status"] == "complete"
    assert "replaced 'conv_in' while it quantized activations" in records["replacing-late.W4A4"]["reason"]
    assert records["round.W4A4"]["status"] == "complete"
