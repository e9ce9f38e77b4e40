import numpy as np
import pytest

from qbench.errors import StageError
from qbench.metrics.fashion import (
    FashionFrechetDistance,
    FashionInceptionScore,
    FashionSpatialFrechetDistance,
)
from qbench.metrics.metric import Against, Gaussian, Metric
from qbench.metrics.rows import Rows
from qbench.plugins import Entry
from qbench.settings import NoSettings


def make(metric: type[Metric]) -> Metric:
    return metric(Entry("the-metric", "qbench", "0", f"here:{metric.__name__}"), NoSettings())


@pytest.fixture
def score() -> Metric:
    return make(FashionInceptionScore)


def value(metric: Metric, features: np.ndarray, reference: Gaussian | None = None) -> float:
    return metric.measure(Rows([features]), reference, 0).value


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities)


def test_uniform_classes_score_one(score: Metric) -> None:
    assert value(score, np.zeros((50, 10))) == pytest.approx(1.0)


@pytest.mark.parametrize("certainty", [50.0, 1000.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_certain_and_evenly_spread_classes_score_their_number(score: Metric, certainty: float, classes: int) -> None:
    logits = certainty * np.tile(np.eye(classes), (5, 1))
    assert value(score, logits) == pytest.approx(classes, rel=1e-6)


@pytest.mark.parametrize("certainty", [0.0, 5.0, 50.0, 700.0, 1000.0, 1e5])
def test_one_class_only_scores_one(score: Metric, certainty: float) -> None:
    """What a denoiser that collapsed gives; classes nobody is in must not make it NaN."""
    logits = np.zeros((50, 10))
    logits[:, 3] = certainty
    assert value(score, logits) == pytest.approx(1.0)


def test_the_score_is_the_exponential_of_the_mutual_information(score: Metric) -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(10, 0.3), size=200)
    marginal = probabilities.mean(axis=0)

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p)).sum(axis=-1)

    expected = np.exp(entropy(marginal) - entropy(probabilities).mean())
    assert value(score, logits_of(probabilities)) == pytest.approx(expected)


def test_only_differences_between_logits_matter(score: Metric) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10))
    shifts = np.random.default_rng(1).normal(scale=1e3, size=(50, 1))
    assert value(score, logits + shifts) == pytest.approx(value(score, logits))


def test_the_score_lies_between_one_and_the_number_of_classes(score: Metric) -> None:
    logits = 10 * np.random.default_rng(0).normal(size=(50, 10))
    assert 1 < value(score, logits) < 10


@pytest.mark.parametrize("metric", [FashionFrechetDistance, FashionSpatialFrechetDistance])
def test_the_distance_is_that_of_the_features_from_the_reference(metric: type[Metric]) -> None:
    features = np.random.default_rng(0).normal(size=(5000, 8))
    reference = Gaussian(np.ones(8), np.eye(8))
    assert value(make(metric), features, reference) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_have_no_distance(count: int) -> None:
    with pytest.raises(StageError, match="a Frechet distance needs at least 2 samples"):
        value(make(FashionFrechetDistance), np.zeros((count, 8)), Gaussian(np.zeros(8), np.eye(8)))


@pytest.mark.parametrize("against", [None, Rows([np.zeros((5, 8))])])
def test_the_distance_needs_statistics_of_real_images(against: Rows | None) -> None:
    with pytest.raises(TypeError, match="compares with statistics of real images"):
        make(FashionFrechetDistance).measure(Rows([np.zeros((5, 8))]), against, 0)


def test_without_a_group_the_score_is_that_of_the_other_images(score: Metric) -> None:
    logits = np.random.default_rng(0).normal(size=(90, 10))
    found = score.measure(Rows([logits[:50], logits[50:]]), None, 20)
    group = np.arange(90) % 20
    assert found.without == pytest.approx([value(score, logits[group != left]) for left in range(20)], rel=1e-12)


def test_what_the_metrics_say_of_themselves() -> None:
    distance, spatial, score = FashionFrechetDistance, FashionSpatialFrechetDistance, FashionInceptionScore
    assert (distance.direction, spatial.direction, score.direction) == ("lower", "lower", "higher")
    assert (distance.against, spatial.against) == (Against.REFERENCE, Against.REFERENCE)
    assert score.against is Against.NOTHING
    assert [each.need.feature for each in (distance, spatial, score)] == ["pooled", "spatial", "logits"]
    assert {each.need.extractor for each in (distance, spatial, score)} == {"fashion"}
    assert len({each.protocol for each in (distance, spatial, score)}) == 3
