import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qbench.errors import StageError
from qbench.metrics.metric import PIXELS, Against, RowsMetric
from qbench.metrics.rows import Rows
from qbench.plugins import Entry
from qbench.settings import NoSettings
from qbench.stages.score import Score
from qbench.stages.stage import Runtime, Work

COUNT = 60


class Picky(RowsMetric):
    """A mean that needs a number of images."""

    need = PIXELS
    against = Against.NOTHING
    direction = "lower"
    protocol = ""
    least = COUNT

    def compute(self, samples: Rows, against: Rows | None) -> float:
        if len(samples) < self.least:
            raise StageError(f"{len(samples)} images are too few")
        return float(samples[:].mean())


def score(folder: Path, least: int) -> dict[str, Any]:
    metric = Picky(Entry("picky", "qbench", "0", "here:Picky"), NoSettings())
    metric.least = least
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 4, 4), np.uint8)
    np.save(folder / "images.npy", images)
    shard: Any = SimpleNamespace(work=1.0)
    work = Work({"cell-000000": SimpleNamespace(file=folder.joinpath)}, folder, Runtime("cpu"), lambda done: None)
    Score(metric, (shard,), None, (), None).compute(work)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("score", "without")}


def test_a_figure_is_kept_with_what_it_is_without_each_group(tmp_path: Path) -> None:
    found = score(tmp_path, COUNT - 3)
    assert len(found["without"]) == 20
    assert np.mean(found["without"]) == pytest.approx(found["score"]["value"], abs=1e-12)


def test_a_figure_of_just_enough_images_stands_without_an_interval(tmp_path: Path) -> None:
    found = score(tmp_path, COUNT)
    assert found["without"] == []
    assert found["score"]["samples"] == COUNT


def test_too_few_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="60 images are too few"):
        score(tmp_path, COUNT + 1)
