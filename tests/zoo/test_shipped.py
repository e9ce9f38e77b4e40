"""What lies in the package is what its cards say."""

import json
import re
from typing import Any

import pytest
import torch
from PIL import Image

from qbench.identity import file_digest
from qbench.zoo.calibration_images import COUNT, read_calibration_images
from qbench.zoo.card import calibration_card, features_card, tiny_ddim_card
from qbench.zoo.classifier_training import FASHION_FEATURES
from qbench.zoo.denoiser_training import TINY_DDIM
from qbench.zoo.figures import parameter_count
from qbench.zoo.networks import load_fashion_features, load_tiny_ddim
from qbench.zoo.paths import CARDS, WEIGHTS, card_path, weights_path
from qbench.zoo.reference import read_reference
from qbench.zoo.tensor_file import read_tensors

MODELS = ("tiny-ddim", "fashion-features")
LOADERS = {"tiny-ddim": load_tiny_ddim, "fashion-features": load_fashion_features}
RECIPES = {"tiny-ddim": TINY_DDIM, "fashion-features": FASHION_FEATURES}
WRITERS = {
    "tiny-ddim": tiny_ddim_card,
    "fashion-features": features_card,
    "fashion-calibration": calibration_card,
}


def facts(name: str) -> dict[str, Any]:
    return json.loads((CARDS / f"{name}.json").read_text(encoding="utf-8"))


def test_everything_together_is_small() -> None:
    sizes = {path.name: path.stat().st_size for folder in (WEIGHTS, CARDS) for path in folder.iterdir()}
    assert {f"{name}.safetensors" for name in (*MODELS, "fashion-train", "fashion-calibration")} <= sizes.keys()
    assert sum(sizes.values()) < 6_000_000


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_fp16_and_load(name: str) -> None:
    assert {tensor.dtype for tensor in read_tensors(weights_path(name)).tensors.values()} == {torch.float16}
    model = LOADERS[name]()
    assert not model.training
    assert parameter_count(model) == facts(name)["parameters"]


@pytest.mark.parametrize("name", MODELS)
def test_the_recipe_in_the_file_is_the_one_in_the_code(name: str) -> None:
    assert json.loads(read_tensors(weights_path(name)).metadata["recipe"]) == RECIPES[name].described()


@pytest.mark.parametrize("name", MODELS)
def test_the_card_describes_the_file(name: str) -> None:
    card = card_path(name).read_text(encoding="utf-8")
    assert file_digest(weights_path(name)) in card
    assert f"{weights_path(name).stat().st_size:,} bytes" in card
    assert f"{parameter_count(LOADERS[name]()):,}" in card
    assert "MIT licence" in card
    assert re.findall(r"(?:^|[\s`(])/\w+/", card) == []  # no path of the machine it was made on


@pytest.mark.parametrize("name", WRITERS)
def test_the_card_is_what_the_measured_facts_give(name: str) -> None:
    assert card_path(name).read_text(encoding="utf-8") == WRITERS[name](facts(name))


def test_the_statistics_belong_to_the_shipped_network() -> None:
    reference = read_reference(weights_path("fashion-train"))
    assert reference.extractor_sha256 == file_digest(weights_path("fashion-features"))
    assert reference.samples == 60_000
    assert reference.sha256 in card_path("fashion-features").read_text(encoding="utf-8")


def test_the_images_are_described_and_come_with_their_licence() -> None:
    images = read_calibration_images(weights_path("fashion-calibration"))
    card = card_path("fashion-calibration").read_text(encoding="utf-8")
    assert images.digest in card
    assert f"{weights_path('fashion-calibration').stat().st_size:,} bytes" in card
    assert "Copyright (c) 2017 Zalando SE" in card
    assert "this permission notice shall be included" in card
    assert images.count == COUNT == 1024


def test_the_images_are_of_all_classes() -> None:
    """Within what chance gives: 102.4 images of a class with a deviation of 9.6."""
    counts = facts("fashion-calibration")["per_class"]
    assert (len(counts), sum(counts)) == (10, 1024)
    assert all(75 < count < 130 for count in counts)


def test_the_picture_is_there() -> None:
    with Image.open(CARDS / "tiny-ddim.png") as picture:
        assert picture.size == (512, 512)


def test_the_model_is_better_than_its_bar() -> None:
    found = facts("tiny-ddim")
    assert found["held_out_loss"]["overall"] < 0.042
    assert found["sibling"]["recipe"]["seed"] != found["recipe"]["seed"]
