from pathlib import Path

import numpy as np
import pytest
import torch

from qbench.identity import file_digest
from qbench.metrics.metric import Need
from qbench.metrics.rows import Rows
from qbench.plugins import EXTRACTORS, METRICS
from qbench.settings import NoSettings
from qbench.zoo.caption_tokenizer import load_tokenizer
from qbench.zoo.clip_extractor import CLIPTiny, FashionCLIP
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.garments import Garment, caption
from qbench.zoo.latent_figures import clip_cosines
from qbench.zoo.paths import TOKENIZER
from qbench.zoo.text_models import load_clip_tiny


@pytest.fixture
def extractor(untrained: Path) -> FashionCLIP:
    return FashionCLIP(EXTRACTORS.entry("fashion-clip"), NoSettings())


@pytest.fixture
def extract(extractor: FashionCLIP):
    return extractor.load(torch.device("cpu"))


def test_cosines_are_those_of_embeddings_of_length_one(extract, padded: FashionMnist, said: list[Garment]) -> None:
    images, captions = padded.images[:6], [caption(each) for each in said[:6]]
    found = extract(torch.from_numpy(images), captions)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "image": (6, 64),
        "text": (6, 64),
        "cosine": (6, 1),
    }
    assert all(tensor.dtype == torch.float32 and not tensor.requires_grad for tensor in found.values())
    torch.testing.assert_close(found["image"].norm(dim=1), torch.ones(6))
    assert float(found["cosine"].abs().max()) <= 1 + 1e-6
    expected = np.diagonal(clip_cosines(images, captions, load_clip_tiny(), load_tokenizer()))
    np.testing.assert_allclose(found["cosine"][:, 0].numpy(), expected, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(extract, padded: FashionMnist, said: list[Garment]) -> None:
    images, captions = torch.from_numpy(padded.images[:5]), [caption(each) for each in said[:5]]
    together = extract(images, captions)
    alone = extract(images[3:4], captions[3:4])
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor[0], together[name][3], rtol=1e-4, atol=1e-5)


def test_captions_are_needed(extractor: FashionCLIP, extract, padded: FashionMnist) -> None:
    assert extractor.needs_captions
    with pytest.raises(TypeError, match="fashion-clip needs a caption for each image"):
        extract(torch.from_numpy(padded.images[:1]), None)


def test_weights_and_tokenizer_identify_it(extractor: FashionCLIP, untrained: Path) -> None:
    assert extractor.describe()["weights"] == {
        "clip-tiny.safetensors": file_digest(untrained / "clip-tiny.safetensors"),
        "merges.txt": file_digest(TOKENIZER / "merges.txt"),
        "vocab.json": file_digest(TOKENIZER / "vocab.json"),
    }
    assert extractor.takes((1, 32, 32))
    assert not extractor.takes((1, 16, 16))


def test_the_metric_is_the_mean_cosine_where_it_is_positive() -> None:
    metric = CLIPTiny(METRICS.entry("clip-tiny"), NoSettings())
    assert metric.need == Need("fashion-clip", "cosine")
    assert metric.direction == "higher"
    cosines = np.array([[0.5], [-0.25], [1.0], [0.0]])
    assert metric.measure(Rows([cosines]), None, 0).value == pytest.approx(37.5)
