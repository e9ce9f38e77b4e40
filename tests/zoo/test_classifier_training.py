import dataclasses

import pytest
import torch

from qbench.zoo.classifier_training import FASHION_FEATURES, classifier_loss
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.networks import FashionOutput


class Recorder(torch.nn.Module):
    """Keeps what it is shown and finds all classes equally likely."""

    def forward(self, images: torch.Tensor) -> FashionOutput:
        self.images = images
        return FashionOutput(torch.zeros(len(images), 64), torch.zeros(len(images), 128), torch.zeros(len(images), 10))


def test_not_knowing_costs_the_logarithm_of_ten(synthetic: FashionMnist) -> None:
    loss = classifier_loss(synthetic.images, synthetic.labels, FASHION_FEATURES)
    assert float(loss(Recorder(), 0)) == pytest.approx(2.302585, abs=1e-5)


def test_about_half_of_the_images_are_mirrored(synthetic: FashionMnist) -> None:
    one = FashionMnist(synthetic.images[:1], synthetic.labels[:1])
    settings = dataclasses.replace(FASHION_FEATURES, batch=400)
    recorder = Recorder()
    classifier_loss(one.images, one.labels, settings)(recorder, 0)
    original = torch.from_numpy(one.images).float() / 127.5 - 1
    plain = (recorder.images == original).flatten(1).all(dim=1)
    mirrored = (recorder.images == original.flip(-1)).flatten(1).all(dim=1)
    assert bool((plain ^ mirrored).all())
    assert 150 < int(mirrored.sum()) < 250
