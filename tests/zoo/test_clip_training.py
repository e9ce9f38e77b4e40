import dataclasses

import pytest
import torch
from torch.nn.functional import one_hot
from transformers import CLIPTokenizer

from qbench.zoo.caption_tokenizer import load_tokenizer
from qbench.zoo.clip_training import CLIP_TINY, clip_loss, initial_clip
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.garments import Garment

SETTINGS = dataclasses.replace(CLIP_TINY, batch=16)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return load_tokenizer()


class Agreeing(torch.nn.Module):
    """Gives an image the embedding of its caption, and every caption one of its own, turned by some places."""

    def __init__(self, scale: float, turned: int = 0) -> None:
        super().__init__()
        self.scale, self.turned = torch.tensor(scale), turned

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.images = images
        _, which, self.counts = tokens.unique(dim=0, return_inverse=True, return_counts=True)
        own = one_hot(which, len(self.counts)).float()
        return own.roll(self.turned, dims=1), own, self.scale


def test_perfect_agreement_leaves_only_the_choice_among_equal_captions(
    padded: FashionMnist, said: list[Garment], tokenizer: CLIPTokenizer
) -> None:
    model = Agreeing(scale=100)
    found = clip_loss(padded.images, said, SETTINGS, tokenizer)(model, 0)
    assert 1 < len(model.counts) < 16  # some captions are there more than once
    expected = (model.counts * model.counts.log()).sum() / 16
    assert float(found) == pytest.approx(float(expected), abs=1e-5)
    wrong = clip_loss(padded.images, said, SETTINGS, tokenizer)(Agreeing(scale=100, turned=1), 0)
    assert float(wrong) > 50


def test_where_all_captions_are_equal_there_is_nothing_to_learn(
    padded: FashionMnist, said: list[Garment], tokenizer: CLIPTokenizer
) -> None:
    alike = [said[0]] * len(said)
    model = initial_clip(SETTINGS, len(tokenizer))
    values = clip_loss(padded.images, alike, SETTINGS, tokenizer)(Agreeing(scale=7), 0)
    assert float(values) == pytest.approx(float(torch.tensor(16.0).log()), abs=1e-5)
    with torch.no_grad():
        logits_free = clip_loss(padded.images[:1], alike[:1], SETTINGS, tokenizer)(model, 0)
    assert float(logits_free) == pytest.approx(float(torch.tensor(16.0).log()), abs=1e-4)


def test_images_are_shown_in_three_equal_channels(
    padded: FashionMnist, said: list[Garment], tokenizer: CLIPTokenizer
) -> None:
    model = Agreeing(scale=1)
    clip_loss(padded.images, said, SETTINGS, tokenizer)(model, 0)
    assert model.images.shape == (16, 3, 32, 32)
    assert torch.equal(model.images[:, 0], model.images[:, 2])
    assert float(model.images.min()) == -1


def test_the_loss_of_an_iteration_is_fixed_and_every_weight_learns(
    padded: FashionMnist, said: list[Garment], tokenizer: CLIPTokenizer
) -> None:
    settings = dataclasses.replace(CLIP_TINY, batch=4)
    model = initial_clip(settings, len(tokenizer))
    loss = clip_loss(padded.images, said, settings, tokenizer)
    first = loss(model, 1)
    assert loss(model, 1) == first
    assert loss(model, 2) != first
    first.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
