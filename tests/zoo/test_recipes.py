import dataclasses
from pathlib import Path

import pytest
import torch

from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.garments import Garment
from qbench.zoo.loop import Moment, run_training
from qbench.zoo.recipes import RECIPES, garments_of
from qbench.zoo.train import TRAININGS


@pytest.mark.usefixtures("small_batches", "untrained")
@pytest.mark.parametrize("name", TRAININGS)
def test_every_model_has_a_recipe_of_its_name(name: str, data: Path) -> None:
    recipe = RECIPES[name]
    model, loss = recipe.prepare(recipe.settings, data)
    assert recipe.settings.name == name
    with torch.no_grad():
        assert float(loss(model, 0)) > 0


def test_garments_are_those_of_the_images_without_their_margin(padded: FashionMnist, said: list[Garment]) -> None:
    assert garments_of(padded) == said


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.usefixtures("small_batches", "untrained")
@pytest.mark.parametrize("name", ["fashion-vq", "fashion-kl", "tiny-ldm", "tiny-ldm-kl", "tiny-sd", "clip-tiny"])
def test_a_killed_run_resumes_to_the_same_bytes(name: str, data: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(RECIPES[name].settings, iterations=2, warmup=1)

    def train(run: str, watch=lambda moment: None) -> bytes:
        model, loss = RECIPES[name].prepare(settings, data)
        return run_training(model, loss, settings, tmp_path / run, watch=watch, checkpoint_every=1).read_bytes()

    def killed(moment: Moment) -> None:  # its checkpoint is of iteration 1
        if moment.iteration == 2:
            raise Killed

    with pytest.raises(Killed):
        train("parts", killed)
    resumed = train("parts")
    torch.rand(5)  # the global generator has no say
    assert resumed == train("whole")
