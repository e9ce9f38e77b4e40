import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import qbench
from qbench.errors import DataError, PluginError, SettingsError
from qbench.identity import file_digest
from qbench.metrics.frechet import frechet_distance, gaussian
from qbench.score_request import make_metrics, open_request
from qbench.scoring import Scored, score
from qbench.stages.stage import Runtime

WEIGHTS = Path(qbench.__file__).parent / "zoo" / "weights"
SHIPPED = WEIGHTS / "fashion-train.safetensors"
COUNT = 90
PLUGINS = """\
[qbench.metrics]
breaks = more_plugins:Breaks
fit = more_plugins:Fit
lost = more_plugins:Lost
nearest = more_plugins:Nearest
pixels = more_plugins:Pixels
real-pixels = more_plugins:RealPixels

[qbench.extractors]
length = more_plugins:Length
means = more_plugins:Means
"""
MORE_PLUGINS = '''
import sys

import numpy as np
import torch

from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import PIXELS, Against, Need, RowsMetric


class Means(Extractor):
    features = ("mean", "halves")

    def weights(self):
        return {}

    def load(self, device):
        def extract(images, captions):
            means = images.float().flatten(1).mean(1, keepdim=True)
            return {"mean": means, "halves": torch.cat([means / 2, means / 2], dim=1)}

        return extract


class Length(Means):
    """How long captions are, and how bright their images."""

    features = ("both",)
    needs_captions = True

    def load(self, device):
        def extract(images, captions):
            means = images.float().flatten(1).mean(1)
            return {"both": torch.stack([means, torch.tensor([float(len(each)) for each in captions])], dim=1)}

        return extract


class Nearest(RowsMetric):
    need = Need("means", "mean")
    against = Against.REFERENCE
    direction = "lower"
    protocol = "mean distance to the nearest real image"

    def compute(self, samples, against):
        return float(np.abs(samples[:] - against[:].T).min(axis=1).mean())


class Fit(RowsMetric):
    need = Need("length", "both")
    against = Against.NOTHING
    direction = "higher"
    protocol = "sum of brightness times length"

    def compute(self, samples, against):
        return float(samples[:].prod(axis=1).sum())


class Pixels(RowsMetric):
    need = PIXELS
    against = Against.NOTHING
    direction = "higher"
    protocol = "mean of pixels"

    def compute(self, samples, against):
        return float(samples[:].mean())


class RealPixels(Pixels):
    against = Against.REFERENCE

    def compute(self, samples, against):
        return float(samples[:].mean() - against[:].mean())


class Breaks(Pixels):
    def compute(self, samples, against):
        raise ZeroDivisionError("no\\nluck")


class Lost(Pixels):
    need = Need("means", "means")
'''
Measure = Callable[..., list[Scored]]


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    """Images of the kind that tiny-ddim samples."""
    images: np.ndarray = load_file(WEIGHTS / "fashion-calibration.safetensors")["images"]
    return images[: 3 * COUNT]


def write(images: np.ndarray, folder: Path, names: Sequence[str] | None = None) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(picture).save(folder / (names[index] if names else f"img{index}.png"))
    return folder


@pytest.fixture
def samples(grey: np.ndarray, tmp_path: Path) -> Path:
    return write(grey[:COUNT], tmp_path / "samples")


@pytest.fixture
def real(grey: np.ndarray, tmp_path: Path) -> Path:
    return write(grey[COUNT:], tmp_path / "real")


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Return a function that tells what lies in the folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return lambda: sorted(path.name for path in folder.glob("qbench*"))


@pytest.fixture
def measure(one_thread: None, leftovers: Callable[[], list[str]]) -> Iterator[Measure]:
    """Return a function that measures images; nothing is left of it."""

    def measure_some(names: str, images: Path, batch_size: int = 64, **others: Path) -> list[Scored]:
        request = open_request(make_metrics(names.split(), {}), images, **others)
        return score(request, Runtime("cpu", batch_size), lambda what, count: lambda amount: None)

    yield measure_some
    assert leftovers() == []


@pytest.fixture
def more_plugins(install: Callable[..., None]) -> None:
    install("moreplugins", PLUGINS, {"more_plugins.py": MORE_PLUGINS})


def values(found: Sequence[Scored]) -> list[float]:
    assert [each.failure for each in found] == [None] * len(found)
    return [each.value for each in found if each.value is not None]


def features(images: np.ndarray) -> dict[str, np.ndarray]:
    from qbench.zoo.figures import fashion_features
    from qbench.zoo.networks import load_fashion_features

    return fashion_features(images, load_fashion_features())


def test_a_folder_gives_the_figures_of_its_arrays(
    measure: Measure, samples: Path, real: Path, grey: np.ndarray
) -> None:
    own, other = features(grey[:COUNT]), features(grey[COUNT:])
    expected = [frechet_distance(gaussian(other[feature]), gaussian(own[feature])) for feature in ("pooled", "spatial")]
    found = values(measure("fd-fashion sfd-fashion", samples, reference=real))
    assert found == pytest.approx(expected, rel=1e-6)


def test_published_statistics_give_the_figure_of_their_images(
    measure: Measure, samples: Path, real: Path, grey: np.ndarray, tmp_path: Path
) -> None:
    other = {feature: gaussian(rows) for feature, rows in features(grey[COUNT:]).items()}
    path = tmp_path / "published.npz"
    np.savez(
        path,
        mu=other["pooled"].mean,
        sigma=other["pooled"].covariance,
        mu_s=other["spatial"].mean,
        sigma_s=other["spatial"].covariance,
    )
    names = "fd-fashion sfd-fashion"
    found = values(measure(names, samples, reference=path))
    assert found == pytest.approx(values(measure(names, samples, reference=real)), rel=1e-6)


def test_the_shipped_statistics_are_a_reference(measure: Measure, samples: Path, grey: np.ndarray) -> None:
    found = measure("fd-fashion is-fashion", samples, reference=SHIPPED)
    assert 0.5 < values(found)[0] < 5
    assert 5 < values(found)[1] < 10
    info = found[0].info
    assert info is not None
    assert info.description["reference"] == {"name": "fashion-train", "statistics": file_digest(SHIPPED)}
    assert list(info.description["extractor"]["weights"]) == ["fashion-features.safetensors"]
    assert info.description["images"]["samples"] == COUNT


@pytest.mark.parametrize("batch_size", [1, 13])
def test_figures_do_not_depend_on_the_batch(measure: Measure, samples: Path, real: Path, batch_size: int) -> None:
    names, places = "fd-fashion sfd-fashion is-fashion mse-to-fp", {"reference": real, "full_precision": samples}
    expected = values(measure(names, samples, **places))
    assert values(measure(names, samples, batch_size, **places)) == pytest.approx(expected, rel=1e-6)


def test_figures_do_not_depend_on_when_files_were_made(
    measure: Measure, samples: Path, real: Path, grey: np.ndarray, tmp_path: Path
) -> None:
    order = list(range(COUNT))
    random.Random(0).shuffle(order)
    shuffled = write(grey[order], tmp_path / "shuffled", [f"img{index}.png" for index in order])
    names = "fd-fashion is-fashion"
    first, second = (measure(names, path, reference=real) for path in (samples, shuffled))
    assert values(first) == values(second)
    digests = {each[0].info.description["images"]["images"] for each in (first, second) if each[0].info}
    assert len(digests) == 1


def test_an_array_file_gives_the_figures_of_its_folder(
    measure: Measure, samples: Path, real: Path, grey: np.ndarray, tmp_path: Path
) -> None:
    own, other = tmp_path / "own.npz", tmp_path / "other.npy"
    np.savez(own, grey[:COUNT].transpose(0, 2, 3, 1))
    np.save(other, grey[COUNT:].transpose(0, 2, 3, 1))
    names = "fd-fashion is-fashion"
    assert values(measure(names, own, reference=other)) == values(measure(names, samples, reference=real))


def test_full_precision_is_compared_in_pairs(measure: Measure, grey: np.ndarray, tmp_path: Path) -> None:
    own, other = grey[:12], grey[12:24]
    images, baseline = (
        write(own, tmp_path / "own"),
        write(other, tmp_path / "other", [f"img{i}.bmp" for i in range(12)]),
    )
    found = values(measure("mse-to-fp fd-fashion-to-fp", images, full_precision=baseline))
    difference = (own.astype(float) - other) / 127.5
    assert found[0] == pytest.approx((difference**2).mean(), rel=1e-12)
    assert found[1] > 0
    same = values(measure("mse-to-fp fd-fashion-to-fp", images, full_precision=images))
    assert same == pytest.approx([0, 0], abs=1e-6)


def test_features_are_extracted_once(samples: Path, real: Path, tmp_path: Path, one_thread: None) -> None:
    begun: list[tuple[str, int]] = []
    done: list[float] = []

    def started(what: str, count: int) -> Callable[[float], None]:
        begun.append((what, count))
        return done.append

    metrics = make_metrics(["fd-fashion", "is-fashion", "sfd-fashion", "fd-fashion-to-fp"], {})
    score(open_request(metrics, samples, real, samples), Runtime("cpu", 64), started)
    assert begun == [(f"fashion of {samples}", COUNT), (f"fashion of {real}", 2 * COUNT)]
    assert sum(done) == 3 * COUNT


def test_nothing_is_left_when_it_is_interrupted(samples: Path, real: Path, leftovers: Callable[[], list[str]]) -> None:
    seen: list[list[str]] = []

    def started(what: str, count: int) -> Callable[[float], None]:
        seen.append(leftovers())
        if len(seen) == 2:
            raise KeyboardInterrupt
        return lambda amount: None

    request = open_request(make_metrics(["fd-fashion"], {}), samples, real)
    with pytest.raises(KeyboardInterrupt):
        score(request, Runtime("cpu"), started)
    assert [len(each) for each in seen] == [1, 1]
    assert leftovers() == []


def test_a_metric_of_rows_gets_the_real_images(
    measure: Measure, more_plugins: None, grey: np.ndarray, samples: Path, real: Path
) -> None:
    means = grey.reshape(len(grey), -1).mean(axis=1)
    nearest = np.abs(means[:COUNT, None] - means[None, COUNT:]).min(axis=1).mean()
    pixels = grey[:COUNT].mean() / 127.5 - grey[COUNT:].mean() / 127.5
    assert values(measure("nearest real-pixels", samples, reference=real)) == pytest.approx([nearest, pixels], rel=1e-4)


def test_statistics_and_images_in_one_file(
    measure: Measure, more_plugins: None, grey: np.ndarray, samples: Path, real: Path, tmp_path: Path
) -> None:
    """As guided-diffusion publishes them: statistics of all images, and some of the images."""
    statistics, path = load_file(SHIPPED), tmp_path / "both.npz"
    np.savez(path, grey[COUNT:].transpose(0, 2, 3, 1), mu=statistics["pooled.mean"], sigma=statistics["pooled.cov"])
    distance, spatial, nearest = values(measure("fd-fashion sfd-fashion nearest", samples, reference=path))
    assert distance == pytest.approx(*values(measure("fd-fashion", samples, reference=SHIPPED)), rel=1e-9)
    assert [spatial, nearest] == values(measure("sfd-fashion nearest", samples, reference=real))


def test_captions_go_with_their_images(measure: Measure, more_plugins: None, grey: np.ndarray, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_bytes("\ufeffa\r\nbb\u2028b\n\nccccc\n".encode())
    images = write(grey[:4], tmp_path / "four")
    means = grey[:4].reshape(4, -1).mean(axis=1)
    expected = float((means * [1, 4, 0, 5]).sum())
    (found,) = measure("fit", images, 3, captions=captions)
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.info is not None
    assert found.info.description["captions"]["lines"] == 4


class TestRefusals:
    """What can be told before any work."""

    def refusal(self, measure: Measure, names: str, images: Path, **others: Path) -> str:
        with pytest.raises((DataError, PluginError, SettingsError)) as caught:
            measure(names, images, **others)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_no_reference(self, measure: Measure, samples: Path) -> None:
        text = self.refusal(measure, "is-fashion fd-fashion", samples)
        assert text.startswith("fd-fashion compares with real images: name a folder of them")
        assert text.endswith("--reference")

    def test_no_full_precision(self, measure: Measure, samples: Path, real: Path) -> None:
        text = self.refusal(measure, "mse-to-fp", samples, reference=real)
        assert text == (
            "mse-to-fp compares with the full-precision images of the same noise: name them with --full-precision"
        )

    def test_full_precision_that_does_not_pair(self, measure: Measure, samples: Path, real: Path) -> None:
        text = self.refusal(measure, "mse-to-fp", samples, full_precision=real)
        assert text.startswith(f"{samples} holds 90 images of shape (1, 16, 16) and {real} 180 of shape (1, 16, 16): ")

    def test_full_precision_of_one_image(
        self, measure: Measure, grey: np.ndarray, samples: Path, tmp_path: Path
    ) -> None:
        one = write(grey[:1], tmp_path / "one")
        text = self.refusal(measure, "mse-to-fp", one, full_precision=samples)
        assert text.startswith(f"{one} holds 1 image of shape (1, 16, 16) and {samples} 90 of shape")

    def test_full_precision_of_other_names(self, measure: Measure, grey: np.ndarray, tmp_path: Path) -> None:
        images = write(grey[:3], tmp_path / "images", ["0.png", "2.png", "10.png"])
        baseline = write(grey[:3], tmp_path / "baseline", ["0.png", "02.png", "3.png"])
        text = self.refusal(measure, "mse-to-fp", images, full_precision=baseline)
        assert text == (
            f"{images} has '2' where {baseline} has '02': images of the same noise are compared in pairs, so give them "
            "the same names, suffixes aside"
        )

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("none", "none does not exist: "),
            ("none.safetensors", "none.safetensors does not exist: "),
            ("file.pkl", "file.pkl is no place for images: "),
        ],
    )
    def test_a_reference_may_be_statistics(
        self, measure: Measure, samples: Path, tmp_path: Path, name: str, words: str
    ) -> None:
        (tmp_path / "file.pkl").touch()
        text = self.refusal(measure, "fd-fashion", samples, reference=tmp_path / name)
        assert words in text
        assert text.endswith("or an .npz or .safetensors file of their statistics")

    @pytest.mark.parametrize("kind", ["statistics.npz", "statistics.safetensors"])
    def test_rows_where_there_are_statistics(
        self, measure: Measure, more_plugins: None, samples: Path, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / kind
        if kind.endswith("npz"):
            np.savez(path, mu=np.zeros(1), sigma=np.eye(1))
        else:
            path = SHIPPED
        text = self.refusal(measure, "nearest", samples, reference=path)
        assert text.startswith(f"nearest compares with the features of real images, and {path} holds only statistics: ")

    @pytest.mark.parametrize("place", ["images", "reference", "full_precision"])
    def test_images_of_a_shape_that_the_extractor_does_not_take(
        self, measure: Measure, samples: Path, grey: np.ndarray, tmp_path: Path, place: str
    ) -> None:
        colour = write(np.repeat(grey[:COUNT], 3, axis=1), tmp_path / "colour")
        places = {"images": samples, "reference": samples, "full_precision": samples} | {place: colour}
        name = "fd-fashion-to-fp" if place == "full_precision" else "fd-fashion"
        images = places.pop("images")
        text = self.refusal(measure, name, images, **places)
        if place == "full_precision":
            assert f"{colour} 90 of shape (3, 16, 16)" in text
        else:
            assert text == (
                "fd-fashion takes images of shape (1, 16, 16) or (1, 32, 32) (channels, height, width), and those of "
                f"{colour} have (3, 16, 16): convert them first"
            )

    def test_no_captions(self, measure: Measure, more_plugins: None, samples: Path) -> None:
        text = self.refusal(measure, "fit", samples)
        assert text == "fit looks at the images' captions: name a file of them, one a line, with --captions"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"a\n" * 89, "holds 89 lines and .* 90 images"),
            (b"a\n" * 90 + b"\n", "holds 91 lines and .* 90 images"),
            (b"", "holds 0 lines"),
            (b"a\n", "holds 1 line and"),
            (b"\xff\xfe\xfa", "not a text file in UTF-8"),
            (None, r"cannot be read \(No such file"),
        ],
    )
    def test_captions_that_do_not_fit(
        self, measure: Measure, more_plugins: None, samples: Path, tmp_path: Path, content: bytes | None, words: str
    ) -> None:
        captions = tmp_path / "captions.txt"
        if content is not None:
            captions.write_bytes(content)
        with pytest.raises(DataError, match=words) as caught:
            measure("fit", samples, captions=captions)
        assert str(caught.value).startswith(str(captions))

    def test_a_feature_that_the_extractor_has_not(self, measure: Measure, more_plugins: None, samples: Path) -> None:
        text = self.refusal(measure, "lost", samples)
        assert text == "lost needs the feature 'means', which the extractor 'means' has not: did you mean 'mean'?"

    @pytest.mark.parametrize("option", ["images", "reference", "full_precision"])
    @pytest.mark.parametrize(
        ("name", "words"),
        [("none", "none does not exist: name a folder of images"), ("file.pkl", "file.pkl is no place for images")],
    )
    def test_no_such_place(
        self, measure: Measure, samples: Path, tmp_path: Path, option: str, name: str, words: str
    ) -> None:
        (tmp_path / "file.pkl").touch()
        places = {"images": samples, "reference": samples, "full_precision": samples} | {option: tmp_path / name}
        images = places.pop("images")
        assert words in self.refusal(measure, "fd-fashion mse-to-fp", images, **places)

    def test_an_archive_of_something_else(self, measure: Measure, samples: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "other.npz", weights=np.zeros(3))
        text = self.refusal(measure, "fd-fashion", samples, reference=tmp_path / "other.npz")
        assert "other.npz holds weights: images (arr_0) or statistics of them (mu, sigma) are due" in text


class TestMetrics:
    """Names and settings."""

    def test_settings_go_to_their_metrics(self, fake_plugins: Path) -> None:
        metrics = make_metrics(["micro-contrast", "micro-nan"], {"micro-contrast.power": 3})
        assert [each.settings.model_dump() for each in metrics] == [{"power": 3}, {"power": 2}]

    @pytest.mark.parametrize(
        ("names", "settings", "words"),
        [
            ([], {}, "--metrics: name at least one of .*fd-fashion"),
            (["is-fashion", "is-fashion"], {}, "--metrics: 'is-fashion' is there twice"),
            (["fd-fasion"], {}, "unknown metric 'fd-fasion': did you mean 'fd-fashion'"),
            (["is-fashion"], {"is-fasion.a": 1}, "--set is-fasion.a: no metric 'is-fasion' is asked for: did you mean"),
            (["is-fashion"], {"is-fashion": 1}, "--set is-fashion: write METRIC.KEY=VALUE"),
            (["is-fashion"], {"is-fashion.": 1}, "--set is-fashion.: write METRIC.KEY=VALUE"),
            (["is-fashion"], {"is-fashion.a": 1}, "--set is-fashion.a: unknown key 'a': there are none"),
            (["micro-contrast"], {"micro-contrast.powr": 1}, "unknown key 'powr': did you mean 'power'"),
            (["micro-contrast"], {"micro-contrast.power": 0}, "--set micro-contrast.power: input should be greater"),
            (["micro-contrast"], {"micro-contrast.power.a": 1}, "--set micro-contrast.power: "),
            (["is-fashion"], {"is-fashion.a": 1, "is-fashion.a.b": 1}, "--set is-fashion.a.b: 'a' has a value"),
        ],
    )
    def test_what_is_refused(self, fake_plugins: Path, names: list[str], settings: dict[str, Any], words: str) -> None:
        with pytest.raises((PluginError, SettingsError), match=words) as caught:
            make_metrics(names, settings)
        assert "\n" not in str(caught.value)


class TestFailures:
    """A figure that fails takes no other with it."""

    def test_one_image_has_no_distance(self, measure: Measure, grey: np.ndarray, real: Path, tmp_path: Path) -> None:
        images = write(grey[:1], tmp_path / "one")
        distance, score_of_one, pixels = measure(
            "fd-fashion is-fashion mse-to-fp", images, reference=real, full_precision=images
        )
        assert (distance.value, distance.failure) == (None, "features: a Frechet distance needs at least 2 samples")
        assert distance.info is not None
        assert values([score_of_one, pixels]) == pytest.approx([1, 0])

    def test_one_real_image_has_no_covariance(
        self, measure: Measure, grey: np.ndarray, samples: Path, tmp_path: Path
    ) -> None:
        reference = write(grey[:1], tmp_path / "one")
        distance, _ = measure("fd-fashion is-fashion", samples, reference=reference)
        assert distance.failure == f"{reference}: features: a Frechet distance needs at least 2 samples"

    @pytest.mark.parametrize("name", ["fd-fashion", "micro-distance"])
    def test_statistics_of_another_dimension(
        self, measure: Measure, fake_plugins: Path, grey: np.ndarray, tmp_path: Path, name: str
    ) -> None:
        size = 16 if name == "fd-fashion" else 8
        images = write(grey[:3, :, :size, :size], tmp_path / "samples")
        path = tmp_path / "statistics.npz"
        np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048))
        failed, pixels = measure(f"{name} mse-to-fp", images, reference=path, full_precision=images)
        assert failed.failure is not None
        assert failed.failure.startswith(f"{path} holds statistics of 2,048 dimensions, and the feature 'pooled' of ")
        assert values([pixels]) == [0]

    def test_statistics_without_the_feature(self, measure: Measure, samples: Path, tmp_path: Path) -> None:
        path = tmp_path / "statistics.npz"
        np.savez(path, mu=np.zeros(64), sigma=np.eye(64))
        pooled, spatial = measure("fd-fashion sfd-fashion", samples, reference=path)
        assert len(values([pooled])) == 1
        assert spatial.failure == (
            f"{path} has no statistics of the feature 'spatial': mu_s and sigma_s are due, and it holds mu, sigma"
        )

    def test_a_real_image_that_is_cut_short(self, measure: Measure, samples: Path, real: Path) -> None:
        broken = real / "img7.png"
        broken.write_bytes(broken.read_bytes()[:100])
        pooled, spatial, classes = measure("fd-fashion sfd-fashion is-fashion", samples, reference=real)
        assert pooled.failure is not None
        assert pooled.failure.startswith(f"{broken} cannot be read as an image (")
        assert spatial.failure == pooled.failure
        assert len(values([classes])) == 1

    def test_what_a_plugin_raises_or_cannot_tell(
        self, measure: Measure, more_plugins: None, fake_plugins: Path, samples: Path
    ) -> None:
        breaks, nan, pixels = measure("breaks micro-nan pixels", samples)
        assert breaks.failure == "ZeroDivisionError: no luck"
        assert nan.failure == "micro-nan is not finite for these images (nan)"
        assert len(values([pixels])) == 1
