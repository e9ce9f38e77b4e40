"""Figures from folders of images, by qbench and by the libraries that others report them with."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from cleanfid import fid as cleanfid
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from qbench.errors import StageError
from qbench.metrics.inception import FID, KID, SFID, CleanFID, FIDToFullPrecision, InceptionMetric, InceptionScore
from qbench.metrics.inception_extractor import CleanInception, Inception, InceptionSettings
from qbench.metrics.metric import Against, Gaussian, Need, RowsMetric
from qbench.metrics.precision_recall import Precision, Recall
from qbench.metrics.rows import Rows
from qbench.plugins import METRICS, Entry

SPLITS, SUBSETS, SUBSET_SIZE, NEIGHBOURS = 3, 10, 6, 1
Images = NDArray[np.uint8]
Array = NDArray[np.float64]
Features = Mapping[str, Rows]


def make(metric: type[InceptionMetric], **settings: Any) -> InceptionMetric:
    entry = Entry("the-metric", "qbench", "0", f"here:{metric.__name__}")
    return metric(entry, metric.settings_class(**settings))


def coloured_squares(count: int, squares: int, brightest: float, seed: int) -> Images:
    """Images [count, 3, 32, 32] that differ in colour and contrast."""
    random = np.random.default_rng(seed)
    centre, contrast = random.uniform(0, brightest, (2, count, 3, 1, 1))
    coarse = centre + contrast * random.uniform(-1, 1, (count, 3, squares, squares))
    fine = np.kron(coarse, np.ones((32 // squares, 32 // squares)))
    return (fine + random.normal(0, 8, fine.shape)).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Pair:
    """Two sets of images, in folders and in memory."""

    samples: Images
    real: Images
    folder: Path

    @property
    def paths(self) -> tuple[str, str]:
        return str(self.folder / "samples"), str(self.folder / "real")


def pair_in(folder: Path, samples: int, real: int) -> Pair:
    pair = Pair(coloured_squares(samples, 4, 160, 0), coloured_squares(real, 8, 255, 1), folder)
    for path, images in zip(pair.paths, (pair.samples, pair.real), strict=True):
        Path(path).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image.transpose(1, 2, 0)).save(Path(path) / f"{index:03}.png")
    return pair


def extract_with(of: type[Inception], weights: Path, images: Images, batch_size: int = 64) -> Features:
    entry = Entry("inception", "qbench", "0", f"here:{of.__name__}")
    extract = of(entry, InceptionSettings(weights=str(weights))).load(torch.device("cpu"))
    with torch.inference_mode():
        batches = [extract(batch, None) for batch in torch.from_numpy(images).split(batch_size)]
    return {name: Rows([np.concatenate([batch[name].numpy() for batch in batches])]) for name in of.features}


@pytest.fixture(scope="session", params=[(14, 8), pytest.param((60, 40), marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_in(tmp_path_factory.mktemp("images"), *request.param)


@pytest.fixture(scope="session")
def ours(pair: Pair, inception_weights: Path) -> tuple[Features, Features]:
    """Features of samples and of real images."""
    return (
        extract_with(Inception, inception_weights, pair.samples),
        extract_with(Inception, inception_weights, pair.real),
    )


@pytest.fixture(scope="session")
def theirs(pair: Pair, inception_weights: Path) -> Mapping[str, Any]:
    """Figures of torch-fidelity; and under ``maps`` what it has in the layer that sFID is computed from."""
    maps: list[Tensor] = []

    class Hooked(torch_fidelity.FeatureExtractorInceptionV3):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: maps.append(output.clone()))

    name = f"hooked-{len(pair.samples)}"
    torch_fidelity.register_feature_extractor(name, Hooked)
    figures = torch_fidelity.calculate_metrics(
        input1=pair.paths[0],
        input2=pair.paths[1],
        feature_extractor=name,
        feature_extractor_weights_path=str(inception_weights),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        isc_splits=SPLITS,
        kid_subsets=SUBSETS,
        kid_subset_size=SUBSET_SIZE,
        prc_neighborhood=NEIGHBOURS,
        samples_shuffle=False,
        batch_size=13,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    return {**figures, "maps": torch.cat(maps)}


def statistics(rows: Rows) -> Gaussian:
    """Statistics of few features with their exact root, which spares the eigenvectors of 2,048 dimensions."""
    root = (rows[:] - rows[:].mean(0)).T / np.sqrt(len(rows) - 1)
    return Gaussian(rows[:].mean(0), root @ root.T, root)


def figure(metric: InceptionMetric, samples: Features, real: Features) -> float:
    rows = samples[metric.feature]
    if metric.against is Against.NOTHING:
        return metric.measure(rows, None, 0).value
    against = real[metric.feature]
    return metric.measure(rows, against if isinstance(metric, RowsMetric) else statistics(against), 0).value


def distance_in_closed_form(first: Array, second: Array) -> float:
    """The roots of the eigenvalues of C1 C2 are the singular values of X1 X2^T, for centred features X."""
    centred = [(each - each.mean(0)) / np.sqrt(len(each) - 1) for each in (first, second)]
    shift = first.mean(0) - second.mean(0)
    roots = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    return float(shift @ shift + sum((each**2).sum() for each in centred) - 2 * roots)


@pytest.mark.parametrize(
    ("metric", "name", "tolerance"),
    [
        # The eigenvalues of a product of singular matrices are off by about the root of float64's precision.
        pytest.param(make(FID), "frechet_inception_distance", {"rel": 1e-5}, id="fid"),
        pytest.param(make(InceptionScore, splits=SPLITS), "inception_score_mean", {"rel": 1e-6}, id="is"),
        # torch-fidelity has kernels of about 1 in float32, and the figure is a small difference between them.
        pytest.param(
            make(KID, subsets=SUBSETS, subset_size=SUBSET_SIZE),
            "kernel_inception_distance_mean",
            {"abs": 1e-6},
            id="kid",
        ),
        pytest.param(make(Precision, neighbours=NEIGHBOURS), "precision", {"rel": 1e-6}, id="precision"),
        pytest.param(make(Recall, neighbours=NEIGHBOURS), "recall", {"rel": 1e-6}, id="recall"),
    ],
)
def test_the_figure_of_two_folders_is_that_of_torch_fidelity(
    ours: tuple[Features, Features],
    theirs: Mapping[str, Any],
    metric: InceptionMetric,
    name: str,
    tolerance: dict[str, float],
) -> None:
    assert figure(metric, *ours) == pytest.approx(theirs[name], **tolerance)


def test_sfid_is_that_of_the_first_channels_of_mixed_6(
    pair: Pair, ours: tuple[Features, Features], theirs: Mapping[str, Any]
) -> None:
    """In the evaluator of guided-diffusion: mixed_6/conv:0, NHWC, ``[..., :7]``, each image flat."""
    flat = theirs["maps"].numpy().astype(np.float64).transpose(0, 2, 3, 1)[..., :7].reshape(-1, 2023)
    samples, real = np.split(flat, [len(pair.samples)])
    assert figure(make(SFID), *ours) == pytest.approx(distance_in_closed_form(samples, real), rel=1e-6)


@pytest.mark.parametrize("metric", [FID, FIDToFullPrecision])
def test_a_distance_is_that_of_the_closed_form(ours: tuple[Features, Features], metric: type[InceptionMetric]) -> None:
    samples, real = (features["pooled"] for features in ours)
    against = statistics(real) if metric is FID else real
    found = make(metric).measure(samples, against, 0).value
    assert found == pytest.approx(distance_in_closed_form(samples[:], real[:]), rel=1e-6)


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 13])
def test_the_batch_size_is_of_no_account(
    pair: Pair, ours: tuple[Features, Features], inception_weights: Path, batch_size: int
) -> None:
    """The others are of one batch; 13 leaves one image for the last one."""
    samples, real = ours
    again = extract_with(Inception, inception_weights, pair.samples, batch_size)
    for metric in (
        make(FID),
        make(SFID),
        make(InceptionScore, splits=SPLITS),
        make(KID, subsets=SUBSETS, subset_size=SUBSET_SIZE),
        make(Precision, neighbours=NEIGHBOURS),
        make(Recall, neighbours=NEIGHBOURS),
    ):
        assert figure(metric, again, real) == pytest.approx(figure(metric, samples, real), rel=1e-6)


@pytest.mark.skipif(
    tuple(map(int, version("scipy").split(".")[:2])) >= (1, 18),
    reason="clean-fid's distance passes an argument to sqrtm that scipy 1.18 no longer has",
)
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_the_clean_figure_of_two_folders_is_that_of_clean_fid(tmp_path: Path, inception_weights: Path) -> None:
    """On 3 mixtures of the 2,048 features: so few images have a distance that its sqrtm can compute."""
    mixtures = np.random.default_rng(0).normal(size=(2048, 3))
    pair = pair_in(tmp_path, 5, 5)
    network = torch_fidelity.FeatureExtractorInceptionV3(
        "theirs", ["2048"], feature_extractor_weights_path=inception_weights
    )

    def mixed(images: Tensor) -> Tensor:
        x = (images - 128) / 128
        for name, layer in network.named_children():
            x = layer(x) if name != "fc" else x
        return x.flatten(1).double() @ torch.from_numpy(mixtures)

    theirs = cleanfid.compute_fid(
        *pair.paths,
        mode="clean",
        custom_feat_extractor=mixed,
        num_workers=0,
        device=torch.device("cpu"),
        verbose=False,
    )
    samples, real = (
        Rows([extract_with(CleanInception, inception_weights, images)["pooled"][:] @ mixtures])
        for images in (pair.samples, pair.real)
    )
    assert make(CleanFID).measure(samples, statistics(real), 0).value == pytest.approx(theirs, rel=1e-6)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("count", "splits"), [(23, 1), (23, 4), (10, 10), (250, 7)])
def test_splits_follow_the_order_of_samples(random: np.random.Generator, count: int, splits: int) -> None:
    logits = random.normal(size=(count, 12))
    expected = isc_features_to_metric(torch.from_numpy(logits), splits, shuffle=False)["inception_score_mean"]
    metric = make(InceptionScore, splits=splits)
    assert metric.measure(Rows([logits[:5], logits[5:]]), None, 0).value == pytest.approx(expected, rel=1e-12)


def test_fewer_samples_than_splits_have_no_score(random: np.random.Generator) -> None:
    with pytest.raises(StageError, match="the-metric: 9 samples cannot be parted in 10 splits"):
        make(InceptionScore).measure(Rows([random.normal(size=(9, 12))]), None, 0)


@pytest.mark.parametrize(("degree", "size"), [(3, 50), (3, 10), (1, 20)])
def test_a_kernel_distance_is_that_of_the_same_subsets(random: np.random.Generator, degree: int, size: int) -> None:
    samples, real = random.normal(size=(60, 5)), random.normal(0.3, 1, size=(50, 5))
    expected = kid_features_to_metric(
        torch.from_numpy(samples),
        torch.from_numpy(real),
        kid_subsets=7,
        kid_subset_size=size,
        kid_kernel_poly_degree=degree,
        verbose=False,
    )
    metric = make(KID, subsets=7, subset_size=size, degree=degree)
    found = metric.measure(Rows([samples]), Rows([real]), 0).value
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)


def test_a_kernel_distance_without_a_group_is_that_of_the_others(random: np.random.Generator) -> None:
    """Where each subset is everything."""
    samples, real = Rows([random.normal(size=(60, 5))]), Rows([random.normal(0.3, 1, size=(60, 5))])
    found = make(KID, subsets=2, subset_size=60).measure(samples, real, 20)
    assert len(found.without) == 20
    for group, value in enumerate(found.without):
        first, second = samples.without(group, 20)[:], real[:]
        kernels = [(one @ other.T / 5 + 1) ** 3 for one, other in ((first, first), (second, second), (first, second))]
        means = [(kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in kernels[:2]]
        assert value == pytest.approx(sum(means) - 2 * kernels[2].mean(), rel=1e-9)


@pytest.mark.parametrize(("samples", "real"), [(999, 1000), (1000, 999)])
def test_fewer_images_than_a_subset_have_no_kernel_distance(samples: int, real: int) -> None:
    with pytest.raises(StageError, match=f"{samples} samples and {real} real images are too few for subsets of 1000"):
        make(KID).measure(Rows([np.zeros((samples, 2))]), Rows([np.zeros((real, 2))]), 0)


@pytest.mark.parametrize("against", [None, Gaussian(np.zeros(2), np.eye(2))])
def test_a_kernel_distance_needs_features_of_real_images(against: Gaussian | None) -> None:
    with pytest.raises(TypeError, match="the-metric compares with features of real images"):
        make(KID).measure(Rows([np.zeros((1000, 2))]), against, 0)


OFFERED = {
    "fid": (FID, "inception", "pooled", "lower"),
    "sfid": (SFID, "inception", "spatial", "lower"),
    "clean-fid": (CleanFID, "inception-clean", "pooled", "lower"),
    "fid-to-fp": (FIDToFullPrecision, "inception", "pooled", "lower"),
    "is": (InceptionScore, "inception", "logits", "higher"),
    "kid": (KID, "inception", "pooled", "lower"),
    "precision": (Precision, "inception", "pooled", "higher"),
    "recall": (Recall, "inception", "pooled", "higher"),
}


@pytest.mark.parametrize("name", OFFERED)
def test_what_a_metric_says_of_itself(name: str) -> None:
    metric, extractor, feature, direction = OFFERED[name]
    assert METRICS.load(name) is metric
    assert make(metric).need == Need(extractor, feature, {"weights": None})
    assert make(metric).direction == direction
    assert "2015-12-05" in make(metric).protocol
    assert "{" not in make(metric).protocol


@pytest.mark.parametrize("name", OFFERED)
def test_the_extractor_gets_the_weights_and_the_identity_does_not(name: str) -> None:
    metric = OFFERED[name][0]
    own = make(metric, weights="/home/somebody/own.pth")
    assert own.need.settings == {"weights": "/home/somebody/own.pth"}
    assert own.describe() == make(metric).describe()
    assert own.protocol == make(metric).protocol + "; the network has the weights of a file that was named"


def test_settings_stand_in_the_protocol() -> None:
    assert "mean of 7 splits" in make(InceptionScore, splits=7).protocol
    assert "degree 3, mean of 20 subsets of 500 images" in make(KID, subsets=20, subset_size=500).protocol
    assert "the neighbour of rank 5" in make(Precision, neighbours=5).protocol
    assert make(InceptionScore, splits=7).describe()["settings"] == {"splits": 7}
