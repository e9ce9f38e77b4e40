import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from qbench.metrics.clip import CMMD, CLIPScore, CMMDSettings
from qbench.metrics.metric import Against, Gaussian, Need
from qbench.metrics.open_clip_extractor import OpenCLIP, OpenCLIPSettings, OpenCLIPWeights
from qbench.metrics.rows import Rows
from qbench.plugins import Entry

MODEL = "tiny-clip-of-a-score"
ENTRY = Entry("the-metric", "qbench", "0", "here:there")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that open_clip knows, with random weights in a file."""
    folder = tmp_path_factory.mktemp("open-clip")
    towers = {
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{MODEL}.json").write_text(json.dumps({"embed_dim": 8, **towers}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
        patch.setattr("open_clip.factory._MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS})
        open_clip.add_model_config(folder / f"{MODEL}.json")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            torch.save(open_clip.create_model(MODEL).state_dict(), folder / "weights.pt")
        yield folder / "weights.pt"


@pytest.fixture
def score() -> CLIPScore:
    return CLIPScore(ENTRY, OpenCLIPWeights())


@pytest.fixture
def cmmd() -> CMMD:
    return CMMD(ENTRY, CMMDSettings())


def rows(values: np.ndarray) -> Rows:
    return Rows(np.array_split(values.astype(np.float32), 3))


def units(count: int, seed: int, dimensions: int = 12) -> np.ndarray:
    found = np.random.default_rng(seed).normal(seed, 1.0, (count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def direct_cmmd(samples: np.ndarray, real: np.ndarray) -> float:
    def mean_kernel(one: np.ndarray, other: np.ndarray) -> float:
        squares = ((one.astype(np.float64)[:, None] - other.astype(np.float64)) ** 2).sum(axis=-1)
        return float(np.exp(-squares / (2 * 10**2)).mean())

    return 1000 * (mean_kernel(samples, samples) + mean_kernel(real, real) - 2 * mean_kernel(samples, real))


def test_the_score_is_that_of_open_clip_called_by_hand(weights: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 20, 20), np.uint8)
    captions = [f"a picture of number {index}" for index in range(6)]
    metric = CLIPScore(ENTRY, OpenCLIPWeights(model=MODEL, pretrained=str(weights)))
    assert metric.need.extractor == "open-clip"
    extract = OpenCLIP(ENTRY, OpenCLIPSettings(**metric.need.settings)).load(torch.device("cpu"))
    cosines = extract(torch.from_numpy(images), captions)[metric.need.feature].numpy()

    network, preprocess = open_clip.create_model_from_pretrained(MODEL, pretrained=str(weights))
    total = 0.0
    with torch.no_grad():
        for image, caption in zip(images, captions, strict=True):
            seen = network.encode_image(preprocess(Image.fromarray(image.transpose(1, 2, 0)))[None])[0]
            read = network.encode_text(open_clip.get_tokenizer(MODEL)([caption]))[0]
            total += max(0.0, 100 * float(seen @ read / (seen.norm() * read.norm())))
    assert total > 1
    assert metric.measure(rows(cosines), None, 0).value == pytest.approx(total / 6, rel=1e-5)


def test_a_negative_cosine_counts_as_none(score: CLIPScore) -> None:
    assert score.measure(rows(np.array([[0.5], [-0.5], [0.25], [1.0]])), None, 0).value == pytest.approx(175 / 4)
    assert score.measure(rows(np.full((4, 1), -0.5)), None, 0).value == 0.0


def test_the_score_without_a_group(score: CLIPScore) -> None:
    cosines = np.random.default_rng(0).uniform(-0.2, 0.5, (50, 1)).astype(np.float32)
    found = score.measure(rows(cosines), None, 20)
    for group, without in enumerate(found.without):
        left = np.delete(cosines, np.s_[group::20])
        assert without == pytest.approx(100 * np.maximum(left, 0).mean())


def test_what_the_score_says_of_itself(score: CLIPScore) -> None:
    assert (score.against, score.direction) == (Against.NOTHING, "higher")
    assert score.need == Need("open-clip", "cosine", {"model": "ViT-B-32", "pretrained": "openai", "captions": True})
    for word in ("100 max(cosine, 0)", "ViT-B-32", "'openai'"):
        assert word in score.protocol
    other = CLIPScore(ENTRY, OpenCLIPWeights(model="ViT-L-14"))
    assert other.protocol != score.protocol
    assert other.describe() != score.describe()


@pytest.mark.parametrize("metric", [CLIPScore, CMMD])
def test_where_a_weight_file_lies_is_not_told(metric: type[CLIPScore | CMMD]) -> None:
    found = metric(ENTRY, metric.settings_class(pretrained="/home/me/secret.pt"))
    assert found.need.settings["pretrained"] == "/home/me/secret.pt"
    assert "weights from a file" in found.protocol
    assert "secret" not in found.protocol + json.dumps(found.describe())


def test_what_cmmd_says_of_itself(cmmd: CMMD) -> None:
    assert (cmmd.against, cmmd.direction) == (Against.REFERENCE, "lower")
    assert cmmd.need == Need("open-clip", "image", {"model": "ViT-L-14-336", "pretrained": "openai", "captions": False})
    for word in ("sigma 10", "1000 times", "ViT-L-14-336", "'openai'"):
        assert word in cmmd.protocol


@pytest.mark.parametrize(("count", "real"), [(1, 1), (30, 47), (1100, 1030)])
def test_cmmd_is_its_definition(cmmd: CMMD, count: int, real: int) -> None:
    samples, others = units(count, 0), units(real, 1)
    found = cmmd.measure(rows(samples), rows(others), 0).value
    assert found == pytest.approx(direct_cmmd(samples, others), rel=1e-9)
    assert found == cmmd.compute(rows(samples), rows(others))


def test_cmmd_of_two_points(cmmd: CMMD) -> None:
    """Every image alike on either side: 1000 (1 + 1 - 2 exp(-d^2 / 200)) with d^2 = 2 for perpendicular ones."""
    samples, others = np.tile([1.0, 0.0], (7, 1)), np.tile([0.0, 1.0], (5, 1))
    expected = 2000 * (1 - np.exp(-2 / 200))
    assert cmmd.measure(rows(samples), rows(others), 0).value == pytest.approx(expected, rel=1e-12)


def test_cmmd_of_the_same_images_is_none(cmmd: CMMD) -> None:
    samples = units(1500, 0)
    shuffled = np.random.default_rng(0).permutation(samples)
    assert abs(cmmd.measure(rows(samples), rows(samples), 0).value) < 1e-9
    assert abs(cmmd.measure(rows(samples), rows(shuffled), 0).value) < 1e-9


def test_cmmd_without_a_group(cmmd: CMMD) -> None:
    samples, others = units(1050, 0, 4), units(33, 1, 4)
    found = cmmd.measure(rows(samples), rows(others), 20)
    assert found.value == pytest.approx(direct_cmmd(samples, others), rel=1e-9)
    assert len(found.without) == 20
    for group in (0, 9, 19):
        left = np.delete(samples, np.s_[group::20], axis=0)
        assert found.without[group] == pytest.approx(direct_cmmd(left, others), rel=1e-9)


def test_cmmd_does_not_hold_all_pairs_in_memory(cmmd: CMMD) -> None:
    samples, others = rows(units(5000, 0, 4)), rows(units(2000, 1, 4))
    tracemalloc.start()
    try:
        cmmd.measure(samples, others, 20)
        assert tracemalloc.get_traced_memory()[1] < 5000**2 * 8 / 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("against", [None, Gaussian(np.zeros(12), np.eye(12))])
def test_cmmd_needs_features_of_real_images(cmmd: CMMD, against: Gaussian | None) -> None:
    with pytest.raises(TypeError, match="the-metric compares with features of real images"):
        cmmd.measure(rows(units(5, 0)), against, 0)
