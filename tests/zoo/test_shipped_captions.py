"""Images that the shipped tiny-sd makes now fit their captions, and guidance is what makes them fit better."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qbench.plugins import WORKLOADS
from qbench.zoo.caption_tokenizer import load_tokenizer
from qbench.zoo.fashion_mnist import shrink, unpad
from qbench.zoo.figures import fashion_features
from qbench.zoo.first_stages import load_first_stage
from qbench.zoo.garments import NAMES
from qbench.zoo.latent_figures import Model, clip_cosines, sampled_images
from qbench.zoo.latent_workloads import TinySD, TinySDSettings
from qbench.zoo.networks import load_fashion_features
from qbench.zoo.text_models import load_clip_tiny

COUNT, STEPS = 64, 10


@pytest.fixture(scope="module")
def captions() -> list[str]:
    workload = TinySD(WORKLOADS.entry("tiny-sd"), TinySDSettings())
    return list(workload.captions(range(COUNT)))


@pytest.fixture(scope="module")
def images(captions: list[str]) -> Mapping[float, NDArray[np.uint8]]:
    """Samples by their guidance scale."""
    workload = TinySD(WORKLOADS.entry("tiny-sd"), TinySDSettings())
    loaded = workload.load()

    def predict(x: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        return loaded.module(x, timesteps, encoder_hidden_states=text).sample

    first_stage = load_first_stage("fashion-kl")
    model = Model(predict, workload.latent_shape, workload.schedule, workload.sampler, first_stage, loaded.conditioning)
    return {scale: sampled_images(model, COUNT, STEPS, captions, scale) for scale in (1.0, 3.0)}


def scores(images: NDArray[np.uint8], captions: list[str]) -> tuple[float, float]:
    """The metric clip-tiny with the right captions, and the mean over all the wrong ones."""
    cosines = clip_cosines(images, captions, load_clip_tiny(), load_tokenizer())
    of_all = 100 * np.maximum(cosines, 0)
    is_other = np.array([[one != another for one in captions] for another in captions])
    return float(np.diagonal(of_all).mean()), float(of_all[is_other].mean())


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_right_captions_beat_others_by_far(
    images: Mapping[float, NDArray[np.uint8]], captions: list[str], scale: float
) -> None:
    right, wrong = scores(images[scale], captions)
    assert right > 2 * wrong
    assert right > wrong + 20


def test_guidance_makes_images_fit_better(images: Mapping[float, NDArray[np.uint8]], captions: list[str]) -> None:
    assert scores(images[3.0], captions)[0] > scores(images[1.0], captions)[0]
    assert (images[3.0] != images[1.0]).mean() > 0.05


def test_guided_images_are_of_the_class_that_was_asked_for(
    images: Mapping[float, NDArray[np.uint8]], captions: list[str]
) -> None:
    """Judged by the classifier, which saw no captions; a shirt and a t-shirt are hard to tell apart at any size."""
    asked = np.array(
        [next(label for label, name in enumerate(NAMES) if said.endswith(f" {name}")) for said in captions]
    )
    logits = fashion_features(shrink(unpad(images[3.0])), load_fashion_features())["logits"]
    assert (logits.argmax(axis=1) == np.array(asked)).mean() > 0.8
