"""What lies in the package is what its cards say, and good enough."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from qbench.identity import file_digest
from qbench.zoo.calibration_images import COUNT, read_calibration_images
from qbench.zoo.caption_lists import CALIBRATION, EVALUATION, calibration_captions, evaluation_captions
from qbench.zoo.card import calibration_card, features_card, tiny_ddim_card
from qbench.zoo.figures import parameter_count
from qbench.zoo.first_stages import FACTOR, load_first_stage
from qbench.zoo.garments import every_caption
from qbench.zoo.latent_card import clip_card, first_stage_card, latent_card
from qbench.zoo.latent_networks import tiny_ldm_denoiser, tiny_ldm_kl_denoiser
from qbench.zoo.networks import load_fashion_features, load_tiny_ddim, load_weights
from qbench.zoo.paths import CAPTIONS, CARDS, TOKENIZER, WEIGHTS, card_path, weights_path
from qbench.zoo.recipes import RECIPES
from qbench.zoo.reference import read_reference
from qbench.zoo.tensor_file import read_tensors
from qbench.zoo.text_models import load_clip_tiny, load_tiny_sd


def loaded_into(build: Callable[[], nn.Module], name: str) -> nn.Module:
    model = build()
    load_weights(model, weights_path(name))
    return model


LOADERS: dict[str, Callable[[], nn.Module]] = {
    "tiny-ddim": load_tiny_ddim,
    "fashion-features": load_fashion_features,
    "fashion-vq": lambda: load_first_stage("fashion-vq").module,
    "fashion-kl": lambda: load_first_stage("fashion-kl").module,
    "tiny-ldm": lambda: loaded_into(tiny_ldm_denoiser, "tiny-ldm"),
    "tiny-ldm-kl": lambda: loaded_into(tiny_ldm_kl_denoiser, "tiny-ldm-kl"),
    "tiny-sd": lambda: load_tiny_sd()[0],
    "clip-tiny": load_clip_tiny,
}
WRITERS = {
    "tiny-ddim": tiny_ddim_card,
    "fashion-features": features_card,
    "fashion-calibration": calibration_card,
    "fashion-vq": first_stage_card,
    "fashion-kl": first_stage_card,
    "tiny-ldm": latent_card,
    "tiny-ldm-kl": latent_card,
    "tiny-sd": latent_card,
    "clip-tiny": clip_card,
}
PICTURES = {"tiny-ddim": 512} | dict.fromkeys(("fashion-vq", "fashion-kl", "tiny-ldm", "tiny-ldm-kl", "tiny-sd"), 1024)
"""Side of the picture of each, pixels."""


def facts(name: str) -> dict[str, Any]:
    return json.loads((CARDS / f"{name}.json").read_text(encoding="utf-8"))


def test_everything_is_there_and_together_small() -> None:
    sizes = {path: path.stat().st_size for folder in (WEIGHTS, CARDS, CAPTIONS, TOKENIZER) for path in folder.iterdir()}
    weights = {path.stem: size for path, size in sizes.items() if path.parent == WEIGHTS}
    assert weights.keys() == {*LOADERS, "fashion-train", "fashion-calibration"}
    assert max(weights.values()) < 6_000_000
    judges = ("fashion-features", "fashion-train", "fashion-calibration")  # no stand-ins: what judges, and real images
    assert sum(sizes.values()) - sum(weights[name] for name in judges) < 16_000_000
    cards = {f"{name}.{kind}" for name in WRITERS for kind in ("md", "json")} | {f"{name}.png" for name in PICTURES}
    assert {path.name for path in sizes if path.parent == CARDS} == cards


def test_every_model_that_can_be_trained_ships() -> None:
    assert LOADERS.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", LOADERS)
def test_weights_are_fp16_and_load(name: str) -> None:
    tensors = read_tensors(weights_path(name)).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    model, said = LOADERS[name](), facts(name)
    assert not model.training
    assert parameter_count(model) == said["parameters"]
    assert sum(map(torch.numel, tensors.values())) == said["parameters"] + said.get("parameters_text", 0)


@pytest.mark.parametrize("name", LOADERS)
def test_the_recipe_in_the_file_is_the_one_in_the_code(name: str) -> None:
    assert json.loads(read_tensors(weights_path(name)).metadata["recipe"]) == RECIPES[name].settings.described()


@pytest.mark.parametrize("name", LOADERS)
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


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_there(name: str) -> None:
    with Image.open(CARDS / f"{name}.png") as picture:
        assert picture.size == (PICTURES[name], PICTURES[name])
    assert f"]({name}.png)" in card_path(name).read_text(encoding="utf-8")


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


def test_the_captions_are_many_and_can_all_be_said() -> None:
    sampled, calibration = evaluation_captions(), calibration_captions()
    assert (len(sampled), len(calibration)) == (EVALUATION, CALIBRATION)
    assert {*sampled, *calibration} <= set(every_caption())
    assert facts("clip-tiny")["captions"] >= len(set(sampled)) >= 100
    assert len(set(sampled[:250])) >= 60  # a prompt matters among few samples as well


@pytest.mark.parametrize("name", ["fashion-vq", "fashion-kl"])
def test_the_factor_is_the_one_on_the_card(name: str) -> None:
    factor = facts(name)["scaling_factor"]
    assert read_tensors(weights_path(name)).metadata[FACTOR] == str(factor)
    assert f"| {factor:g} |" in card_path(name).read_text(encoding="utf-8")


def test_tiny_ddim_is_better_than_its_bar() -> None:
    found = facts("tiny-ddim")
    assert found["held_out_loss"]["overall"] < 0.042
    assert found["sibling"]["recipe"]["seed"] != found["recipe"]["seed"]


@pytest.mark.parametrize("name", ["fashion-vq", "fashion-kl"])
def test_first_stages_lose_little(name: str) -> None:
    found = facts(name)
    assert found["psnr"] > 24
    assert found["fd"] < 2 * found["fd_test"]
    assert found.get("codes_used", 512) > 100


@pytest.mark.parametrize("name", ["tiny-ldm", "tiny-ldm-kl"])
def test_latent_denoisers_are_far_from_noise(name: str) -> None:
    distances = facts(name)["fd"]
    assert distances["50"] < facts("fashion-features")["fd_noise"] / 20


def test_clip_tiny_tells_captions_apart() -> None:
    found = facts("clip-tiny")
    assert found["score"] > 2 * found["score_shuffled"]
    assert found["class_accuracy"] > 0.75
    assert found["caption_accuracy"] > 10 / found["captions"]


def test_tiny_sd_follows_captions_the_more_the_more_it_is_guided() -> None:
    by_guidance = facts("tiny-sd")["guidance"]
    assert by_guidance["3"]["score"] > by_guidance["1"]["score"]
    for found in by_guidance.values():
        assert found["score"] > 2 * found["score_shuffled"]
