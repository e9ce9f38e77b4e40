import pickle
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch import Tensor
from torch_fidelity import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from qbench.errors import DataError, StageError
from qbench.metrics import inception_extractor
from qbench.metrics.inception_extractor import PUBLISHED, CleanInception, Inception, InceptionSettings
from qbench.plugins import EXTRACTORS, Entry
from qbench.workloads.assets import Address, Home

Extract = Callable[[Tensor, None], Mapping[str, Tensor]]
CPU = torch.device("cpu")


def extractor(weights: Path | None = None, of: type[Inception] = Inception) -> Inception:
    settings = InceptionSettings(weights=None if weights is None else str(weights))
    return of(Entry("inception", "qbench", "0", "here:Inception"), settings)


def random_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def extract(inception_weights: Path) -> Extract:
    return extractor(inception_weights).load(CPU)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint folder, empty; whoever touches the network fails."""

    def connect(*arguments: object) -> None:
        raise AssertionError("it used the network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", connect)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@torch.inference_mode()
def test_features_are_those_of_torch_fidelity_in_one_pass(extract: Extract, inception_weights: Path) -> None:
    images = random_images(2, 3, 20, 36)
    network = FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=inception_weights
    )
    maps: list[Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: maps.append(output.clone()))
    pooled, logits = network(images)
    found = extract(images, None)
    assert torch.equal(found["pooled"], pooled)
    assert torch.equal(found["logits"], logits)
    for position in ((0, 0, 0), (0, 0, 6), (0, 1, 0), (16, 16, 6), (3, 5, 2)):
        row, column, channel = position
        index = (row * 17 + column) * 7 + channel
        assert torch.equal(found["spatial"][:, index], maps[0][:, channel, row, column])
    assert {name: tuple(each.shape) for name, each in found.items()} == {
        "pooled": (2, 2048),
        "spatial": (2, 2023),
        "logits": (2, 1008),
    }
    assert {each.dtype for each in found.values()} == {torch.float32}


@torch.inference_mode()
def test_a_grey_image_is_one_of_three_equal_channels(extract: Extract) -> None:
    grey = random_images(1, 1, 8, 8)
    assert torch.equal(extract(grey, None)["pooled"], extract(grey.repeat(1, 3, 1, 1), None)["pooled"])


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(extract: Extract, channels: int) -> None:
    with pytest.raises(StageError, match=f"not images of {channels} channels"):
        extract(random_images(1, channels, 8, 8), None)


@pytest.mark.parametrize("size", [(8, 8), (31, 17), (299, 299), (310, 400)])
def test_clean_images_are_those_of_clean_fid(size: tuple[int, int]) -> None:
    images = random_images(2, 3, *size)
    found = extractor(of=CleanInception).resized(images, CPU)
    resize = build_resizer("clean")
    for image, resized in zip(images, found, strict=True):
        np.testing.assert_array_equal(resized.permute(1, 2, 0), resize(image.permute(1, 2, 0).numpy()))
    assert found.shape == (2, 3, 299, 299)


def test_clean_images_are_not_rounded() -> None:
    found = extractor(of=CleanInception).resized(random_images(1, 3, 8, 8), CPU)
    assert (found != found.round()).float().mean() > 0.5
    assert (found.min(), found.max()) == (0, 255)


def test_the_published_weights_are_those_of_torch_fidelity() -> None:
    (asset,) = extractor().assets()
    assert asset.source == PUBLISHED
    assert PUBLISHED.url == URL_INCEPTION_V3


def test_weights_of_ones_own_are_nobodys_to_fetch(tmp_path: Path) -> None:
    assert extractor(tmp_path / "mine.pth").assets() == ()


@pytest.mark.parametrize("of", [Inception, CleanInception])
def test_without_weights_there_is_nothing_to_fall_back_on(home: Path, of: type[Inception]) -> None:
    for call in (extractor(of=of).weights, extractor(of=of).describe, lambda: extractor(of=of).load(CPU)):
        with pytest.raises(DataError, match=r"6726825d\.pth is missing; `qbench fetch SUITE`, or .* gets it"):
            call()


def test_half_a_file_is_not_used(home: Path, inception_weights: Path) -> None:
    (home / PUBLISHED.file_name).write_bytes(inception_weights.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"6726825d\.pth is damaged or another file"):
        extractor().load(CPU)


def test_it_says_whether_its_weights_are_the_published_ones(
    home: Path, inception_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256(inception_weights.read_bytes()).hexdigest()
    assert extractor(inception_weights).describe()["published_weights"] is False
    assert extractor(inception_weights).weights() == {"other Inception weights": digest}

    monkeypatch.setattr(
        inception_extractor, "PUBLISHED", Address("https://example.org/real.pth", None, digest[:8], home=Home.TORCH_HUB)
    )
    shutil.copy(inception_weights, home / "real.pth")
    described = extractor().describe()
    assert described["published_weights"] is True
    assert described["weights"] == {"real.pth": digest}
    assert described == extractor(inception_weights).describe()


def test_where_weights_lie_is_no_part_of_what_it_is(inception_weights: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy.pth"
    shutil.copy(inception_weights, copied)
    assert extractor(copied).describe() == extractor(inception_weights).describe()
    assert "path" not in str(extractor(copied).describe())
    assert "copy" not in str(extractor(copied).describe())
    copied.write_bytes(b"other weights")
    assert extractor(copied).describe() != extractor(inception_weights).describe()


def test_a_file_of_ones_own_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.pth cannot be read"):
        extractor(tmp_path / "nowhere.pth").describe()


def without_a_layer(state: dict[str, Tensor]) -> object:
    return {name: tensor for name, tensor in state.items() if not name.startswith("Mixed_7c")}


def with_other_shapes(state: dict[str, Tensor]) -> object:
    return {**state, "fc.weight": torch.zeros(10, 2048)}


@pytest.mark.parametrize("change", [without_a_layer, with_other_shapes, lambda state: [1, 2], lambda state: {}])
def test_weights_of_another_network_are_refused(inception_weights: Path, tmp_path: Path, change) -> None:
    torch.save(change(torch.load(inception_weights, weights_only=True)), tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth does not hold the weights of torch-fidelity's Inception network"):
        extractor(tmp_path / "other.pth").load(CPU)


class Intruder:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code from a weight file ran')",))


@pytest.mark.parametrize("save", [pickle.dump, torch.save])
def test_code_in_a_weight_file_does_not_run(tmp_path: Path, save) -> None:
    with (tmp_path / "intruder.pth").open("wb") as file:
        save({"fc.weight": Intruder()}, file)
    with pytest.raises(DataError, match=r"intruder\.pth does not hold the weights"):
        extractor(tmp_path / "intruder.pth").load(CPU)


def test_both_are_offered() -> None:
    assert EXTRACTORS.load("inception") is Inception
    assert EXTRACTORS.load("inception-clean") is CleanInception
