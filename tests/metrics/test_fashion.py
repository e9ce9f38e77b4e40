import numpy as np
import pytest

from qbench.errors import StageError
from qbench.metrics.fashion import (
    FashionFrechetDistance,
    FashionInceptionScore,
    FashionSpatialFrechetDistance,
)
from qbench.metrics.metric import Against, Gaussian, Metric
from qbench.plugins import Entry
from qbench.settings import NoSettings


def make(metric: type[Metric]) -> Metric:
    return metric(Entry("the-metric", "qbench", "0", f"here:{metric.__name__}"), NoSettings())


@pytest.fixture
def score() -> Metric:
    return make(FashionInceptionScore)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities)


def test_uniform_classes_score_one(score: Metric) -> None:
    assert score.compute(np.zeros((50, 10)), None) == pytest.approx(1.0)


@pytest.mark.parametrize("certainty", [50.0, 1000.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_certain_and_evenly_spread_classes_score_their_number(score: Metric, certainty: float, classes: int) -> None:
    logits = certainty * np.tile(np.eye(classes), (5, 1))
    assert score.compute(logits, None) == pytest.approx(classes, rel=1e-6)


@pytest.mark.parametrize("certainty", [0.0, 5.0, 50.0, 700.0, 1000.0, 1e5])
def test_one_class_only_scores_one(score: Metric, certainty: float) -> None:
    """What a denoiser that collapsed gives; classes nobody is in must not make it NaN."""
    logits = np.zeros((50, 10))
    logits[:, 3] = certainty
    assert score.compute(logits, None) == pytest.approx(1.0)


def test_the_score_is_the_exponential_of_the_mutual_information(score: Metric) -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(10, 0.3), size=200)
    marginal = probabilities.mean(axis=0)

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p)).sum(axis=-1)

    expected = np.exp(entropy(marginal) - entropy(probabilities).mean())
    assert score.compute(logits_of(probabilities), None) == pytest.approx(expected)


def test_only_differences_between_logits_matter(score: Metric) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10))
    shifts = np.random.default_rng(1).normal(scale=1e3, size=(50, 1))
    assert score.compute(logits + shifts, None) == pytest.approx(score.compute(logits, None))


def test_the_score_lies_between_one_and_the_number_of_classes(score: Metric) -> None:
    logits = 10 * np.random.default_rng(0).normal(size=(50, 10))
    assert 1 < score.compute(logits, None) < 10


@pytest.mark.parametrize("metric", [FashionFrechetDistance, FashionSpatialFrechetDistance])
def test_the_distance_is_that_of_the_features_from_the_reference(metric: type[Metric]) -> None:
    features = np.random.default_rng(0).normal(size=(5000, 8))
    reference = Gaussian(np.ones(8), np.eye(8))
    assert make(metric).compute(features, reference) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_have_no_distance(count: int) -> None:
    with pytest.raises(StageError, match="the-metric needs at least 2 samples"):
        make(FashionFrechetDistance).compute(np.zeros((count, 8)), Gaussian(np.zeros(8), np.eye(8)))


@pytest.mark.parametrize("against", [None, np.zeros((5, 8))])
def test_the_distance_needs_statistics_of_real_images(against: np.ndarray | None) -> None:
    with pytest.raises(TypeError, match="compares with statistics of real images"):
        make(FashionFrechetDistance).compute(np.zeros((5, 8)), against)


def test_what_the_metrics_say_of_themselves() -> None:
    distance, spatial, score = FashionFrechetDistance, FashionSpatialFrechetDistance, FashionInceptionScore
    assert (distance.direction, spatial.direction, score.direction) == ("lower", "lower", "higher")
    assert (distance.against, spatial.against) == (Against.REFERENCE, Against.REFERENCE)
    assert score.against is Against.NOTHING
    assert [each.need.feature for each in (distance, spatial, score)] == ["pooled", "spatial", "logits"]
    assert {each.need.extractor for each in (distance, spatial, score)} == {"fashion"}
    assert len({each.protocol for each in (distance, spatial, score)}) == 3
