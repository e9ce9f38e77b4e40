from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity, structural_similarity_index_measure

from qbench.errors import DataError, StageError
from qbench.metrics import similarity
from qbench.metrics.fidelity import MeanOverPairs
from qbench.metrics.metric import PIXELS, Against
from qbench.metrics.rows import Rows
from qbench.metrics.similarity import BACKBONE, LPIPS, StructuralSimilarity
from qbench.plugins import Entry
from qbench.settings import NoSettings
from qbench.workloads.assets import Asset


def make(metric: type[MeanOverPairs]) -> MeanOverPairs:
    return metric(Entry("the-metric", "qbench", "0", "here:there"), NoSettings())


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Smooth uint8 images."""
    coarse = np.random.default_rng(seed).integers(0, 256, (*shape[:-2], -(-shape[-2] // 4), -(-shape[-1] // 4)))
    return np.kron(coarse, np.ones((4, 4)))[..., : shape[-2], : shape[-1]].astype(np.uint8)


def noisy(clean: np.ndarray, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 20, clean.shape)
    return (clean + noise).clip(0, 255).astype(np.uint8)


def figure(metric: MeanOverPairs, one: np.ndarray, other: np.ndarray) -> float:
    return metric.measure(Rows([one]), Rows([other]), 0).value


def direct_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Equation 13 of Wang et al. 2004 for each window of each channel [height, width] of uint8, and the mean."""
    offsets = np.arange(-5, 6)
    gauss = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(gauss, gauss) / gauss.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for x, y in zip(one.reshape(-1, *one.shape[-2:]), other.reshape(-1, *one.shape[-2:]), strict=True):
        for top in range(x.shape[0] - 10):
            for left in range(x.shape[1] - 10):
                a, b = (each[top : top + 11, left : left + 11].astype(float) for each in (x, y))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                both = (window * (a - mean_a) * (b - mean_b)).sum()
                found.append(
                    (2 * mean_a * mean_b + c1) * (2 * both + c2) / (mean_a**2 + mean_b**2 + c1) / (var_a + var_b + c2)
                )
    return float(np.mean(found))


@pytest.fixture
def ssim() -> MeanOverPairs:
    return make(StructuralSimilarity)


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 11, 14)])
def test_ssim_is_its_definition(ssim: MeanOverPairs, shape: tuple[int, ...]) -> None:
    clean = images(*shape)
    assert figure(ssim, noisy(clean), clean) == pytest.approx(direct_ssim(noisy(clean), clean), rel=1e-9)


def test_ssim_is_the_inside_of_the_map_of_torchmetrics(ssim: MeanOverPairs) -> None:
    clean = images(4, 3, 40, 24)
    _, map_ = structural_similarity_index_measure(
        torch.from_numpy(noisy(clean)).double(),
        torch.from_numpy(clean).double(),
        data_range=255,
        return_full_image=True,
    )
    assert figure(ssim, noisy(clean), clean) == pytest.approx(float(map_[..., 5:-5, 5:-5].mean()), rel=1e-9)


def test_ssim_of_equal_images_is_one(ssim: MeanOverPairs) -> None:
    assert figure(ssim, images(3, 1, 16, 16), images(3, 1, 16, 16)) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("one", "other"), [(0, 255), (100, 150), (127, 128)])
def test_ssim_of_flat_images_is_that_of_their_luminance(ssim: MeanOverPairs, one: int, other: int) -> None:
    c1 = (0.01 * 255) ** 2
    expected = (2 * one * other + c1) / (one**2 + other**2 + c1)
    flat = [np.full((2, 1, 12, 12), level, np.uint8) for level in (one, other)]
    assert figure(ssim, *flat) == pytest.approx(expected, rel=1e-9)


def test_ssim_falls_with_noise(ssim: MeanOverPairs) -> None:
    clean = images(3, 1, 32, 32)
    once = noisy(clean)
    assert 1 > figure(ssim, once, clean) > figure(ssim, noisy(once, seed=2), clean)


@pytest.mark.parametrize("shape", [(2, 1, 10, 32), (2, 3, 32, 10), (2, 1, 8, 8)])
def test_images_that_no_window_fits_into(ssim: MeanOverPairs, shape: tuple[int, ...]) -> None:
    with pytest.raises(StageError, match=f"the-metric is not for images of {shape[2]}x{shape[3]}: its window is 11x11"):
        figure(ssim, images(*shape), images(*shape))


def test_ssim_of_many_images_is_the_mean_of_each(ssim: MeanOverPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = images(5, 3, 16, 20)
    at_once = figure(ssim, noisy(clean), clean)
    monkeypatch.setattr(similarity, "NUMBERS_AT_A_TIME", 2 * 3 * 16 * 20)
    assert figure(ssim, noisy(clean), clean) == pytest.approx(at_once, rel=1e-12)
    each = [figure(ssim, noisy(clean)[i : i + 1], clean[i : i + 1]) for i in range(5)]
    assert np.mean(each) == pytest.approx(at_once, rel=1e-12)
    order = [3, 0, 4, 1, 2]
    assert figure(ssim, noisy(clean)[order], clean[order]) == pytest.approx(at_once, rel=1e-12)
    assert figure(ssim, noisy(clean)[order], clean) < at_once - 0.1


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as torch.hub has it, with random weights under the name of AlexNet's; its large layers are zeros."""
    folder = tmp_path_factory.mktemp("torch")
    with torch.device("meta"):
        shapes = {name: each.shape for name, each in torchvision.models.alexnet().state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.05 * torch.randn(shape, generator=generator)
        if name.startswith("features")
        else torch.zeros(1).expand(shape)
        for name, shape in shapes.items()
    }
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, folder / "hub" / "checkpoints" / BACKBONE.file_name)
    return folder


@pytest.fixture
def lpips(hub: Path) -> Iterator[MeanOverPairs]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(hub))
        patch.setattr(Asset, "find", lambda asset: asset.source.path)  # whatever its digest
        yield make(LPIPS)


def test_lpips_is_that_of_torchmetrics(lpips: MeanOverPairs) -> None:
    clean = images(3, 3, 64, 72)
    one, other = (torch.from_numpy(each).float() / 127.5 - 1 for each in (noisy(clean), clean))
    expected = float(learned_perceptual_image_patch_similarity(one, other, net_type="alex"))
    assert expected > 1e-3
    assert figure(lpips, noisy(clean), clean) == pytest.approx(expected, rel=1e-4)


def test_lpips_of_equal_images_is_none(lpips: MeanOverPairs) -> None:
    assert figure(lpips, images(2, 3, 64, 64), images(2, 3, 64, 64)) == 0.0


def test_grey_images_are_three_equal_channels(lpips: MeanOverPairs) -> None:
    grey = images(2, 1, 64, 64)
    colour, noisy_colour = (np.repeat(each, 3, axis=1) for each in (grey, noisy(grey)))
    assert figure(lpips, noisy(grey), grey) == pytest.approx(figure(lpips, noisy_colour, colour), rel=1e-6)


def test_lpips_of_many_images_is_the_mean_of_each(lpips: MeanOverPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = images(3, 3, 64, 64)
    at_once = figure(lpips, noisy(clean), clean)
    monkeypatch.setattr(similarity, "NUMBERS_AT_A_TIME", 1)
    assert figure(lpips, noisy(clean), clean) == pytest.approx(at_once, rel=1e-5)


def test_the_network_is_loaded_once(lpips: MeanOverPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Asset] = []
    monkeypatch.setattr(Asset, "require", lambda asset, command: asked.append(asset))
    assert asked == []
    for _ in range(3):
        figure(lpips, images(1, 3, 64, 64), images(1, 3, 64, 64))
    assert [asset.source for asset in asked] == [BACKBONE]


def test_images_that_lpips_was_not_made_for(lpips: MeanOverPairs) -> None:
    with pytest.raises(StageError, match=r"the-metric is not for images of 32x64: it was fitted to .* of 64x64"):
        figure(lpips, images(2, 3, 32, 64), images(2, 3, 32, 64))


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("it used the network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", connect)
    expected = rf"{tmp_path}/hub/checkpoints/alexnet-owt-7be5be79\.pth is missing; `qbench fetch SUITE`, or .* gets it"
    with pytest.raises(DataError, match=expected):
        figure(make(LPIPS), images(1, 3, 64, 64), images(1, 3, 64, 64))


def test_weights_that_are_others(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(hub))
    with pytest.raises(DataError, match=r"alexnet-owt-7be5be79\.pth is damaged or another file"):
        figure(make(LPIPS), images(1, 3, 64, 64), images(1, 3, 64, 64))


def test_what_they_say_of_themselves() -> None:
    assert (StructuralSimilarity.direction, LPIPS.direction) == ("higher", "lower")
    for metric in (StructuralSimilarity, LPIPS):
        assert metric.against is Against.FULL_PRECISION
        assert metric.need == PIXELS
