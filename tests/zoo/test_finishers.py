from pathlib import Path

import pytest

from qbench.errors import DataError
from qbench.zoo.finishers import ON_32_PIXELS, finish_run
from qbench.zoo.recipes import RECIPES
from qbench.zoo.train import TRAININGS


def test_whatever_is_trained_is_finished_too() -> None:
    assert {"tiny-ddim", "fashion-features", *ON_32_PIXELS} == TRAININGS.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", TRAININGS)
def test_a_run_that_is_not_there_is_one_sentence(name: str, tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match=r"holds no finished run: weights\.safetensors is missing"):
        finish_run(name, tmp_path / "run", None, data, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^There is no model 'tiny-lmd': did you mean 'tiny-ldm'\?$"):
        finish_run("tiny-lmd", tmp_path, None, tmp_path, tmp_path / "to")
