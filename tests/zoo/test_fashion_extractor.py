import numpy as np
import pytest
import torch

from qbench.plugins import EXTRACTORS
from qbench.settings import NoSettings
from qbench.zoo.fashion_extractor import FashionExtractor
from qbench.zoo.fashion_mnist import FashionMnist, pad, shrink


@pytest.fixture(scope="module")
def extractor() -> FashionExtractor:
    return FashionExtractor(EXTRACTORS.entry("fashion"), NoSettings())


@pytest.fixture(scope="module")
def extract(extractor: FashionExtractor):
    return extractor.load(torch.device("cpu"))


def test_an_image_has_the_same_features_at_both_sizes(extract, patches: FashionMnist) -> None:
    large = torch.from_numpy(pad(patches.images[:8]))
    small = torch.from_numpy(shrink(patches.images[:8]))
    of_large, of_small = extract(large, None), extract(small, None)
    assert set(of_large) == {"pooled", "spatial", "logits"}
    for feature, found in of_large.items():
        assert torch.equal(found, of_small[feature])


def test_what_is_given_stays_as_it_is(extract, patches: FashionMnist) -> None:
    given = torch.from_numpy(pad(patches.images[:2]))
    before = given.clone()
    extract(given, None)
    assert torch.equal(given, before)


def test_it_takes_both_sizes_and_no_other(extractor: FashionExtractor) -> None:
    assert extractor.takes((1, 16, 16))
    assert extractor.takes((1, 32, 32))
    assert not extractor.takes((3, 32, 32))
    assert not extractor.takes((1, 28, 28))
    assert extractor.shapes_in_words() == "(1, 16, 16) or (1, 32, 32)"


def test_features_are_finite(extract) -> None:
    black = torch.from_numpy(np.zeros((1, 1, 32, 32), np.uint8))
    assert all(bool(found.isfinite().all()) for found in extract(black, None).values())
