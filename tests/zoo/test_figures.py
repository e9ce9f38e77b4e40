import numpy as np
import pytest
import torch

from qbench.metrics.frechet import gaussian
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.figures import (
    accuracy,
    distance_to_real,
    fashion_features,
    held_out_loss,
    noise_images,
    parameter_count,
    sampled_images,
)
from qbench.zoo.networks import load_fashion_features, tiny_ddim_denoiser


@pytest.fixture(scope="module")
def untrained() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_ddim_denoiser().eval()


def test_the_held_out_loss_is_fixed_and_its_bands_average_to_it(
    untrained: torch.nn.Module, synthetic: FashionMnist
) -> None:
    images = np.tile(synthetic.images, (5, 1, 1, 1))  # 320 images: more than one batch
    found = held_out_loss(untrained, images)
    assert found == held_out_loss(untrained, images)
    assert list(found.bands) == ["0-49", "50-249", "250-499", "500-749", "750-999"]
    weights = [0.05, 0.2, 0.25, 0.25, 0.25]
    mean = sum(weight * loss for weight, loss in zip(weights, found.bands.values(), strict=True))
    assert mean == pytest.approx(found.overall, rel=0.02)


def test_samples_do_not_depend_on_how_many_are_asked_for(untrained: torch.nn.Module) -> None:
    three, two = sampled_images(untrained, 3, steps=2), sampled_images(untrained, 2, steps=2)
    assert three.shape == (3, 1, 16, 16)
    assert three.dtype == np.uint8
    assert np.abs(three[:2].astype(int) - two).max() <= 1


def test_distance_of_images_to_themselves_is_nothing_and_to_noise_is_large(synthetic: FashionMnist) -> None:
    network = load_fashion_features()
    flat = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 1, 16, 16)).copy()
    real = gaussian(fashion_features(flat, network)["pooled"])
    assert distance_to_real(flat, network, real) == pytest.approx(0, abs=1e-4)
    assert distance_to_real(noise_images(256), network, real) > 1


def test_accuracy_counts(synthetic: FashionMnist) -> None:
    network = load_fashion_features()
    named = fashion_features(synthetic.images, network)["logits"].argmax(axis=1)
    wrong = named.copy()
    wrong[:16] = (wrong[:16] + 1) % 10
    assert accuracy(synthetic.images, named, network) == 1
    assert accuracy(synthetic.images, wrong, network) == 0.75


def test_features_are_those_of_the_network(synthetic: FashionMnist) -> None:
    network = load_fashion_features()
    images = np.tile(synthetic.images, (5, 1, 1, 1))
    found = fashion_features(images, network)
    direct = network(torch.from_numpy(images[300:]).float() / 127.5 - 1)
    assert {name: array.shape for name, array in found.items()} == {
        "pooled": (320, 64),
        "spatial": (320, 128),
        "logits": (320, 10),
    }
    np.testing.assert_allclose(found["spatial"][300:], direct.spatial.numpy(), atol=1e-5)
    assert found["pooled"].dtype == np.float64


def test_parameters_are_counted() -> None:
    assert parameter_count(torch.nn.Linear(3, 4)) == 16
