from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor

from qbench.errors import DataError
from qbench.metrics.extractor import Extractor
from qbench.plugins import Entry
from qbench.settings import NoSettings
from qbench.stages.reference import FILE, Reference
from qbench.stages.stage import Runtime, Work
from qbench.workloads.reference_sets import reference_set
from qbench.workloads.reference_settings import PreprocessingSettings, ReferenceSettings


class Corners(Extractor):
    """The first pixel as its main feature, as the Inception network has a pooled one, and more beside it."""

    features = ("pooled", "spatial", "logits")

    def weights(self) -> Mapping[str, str]:
        return {"none": "0" * 64}

    def load(self, device: torch.device) -> Any:
        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            values = images.float().flatten(1)
            return {"pooled": values[:, :2], "spatial": values[:, :3], "logits": values[:, :4]}

        return extract


def stage(settings: ReferenceSettings) -> Reference:
    workload: Any = SimpleNamespace(
        reference=lambda name, weights: reference_set(settings, (3, 4, 4), "real ones", name, weights)
    )
    return Reference(workload, Corners(Entry("corners", "qbench", "0", "here:Corners"), NoSettings()))


def computed(reference: Reference, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    reference.compute(Work({}, folder, Runtime("cpu", 2), lambda done: None))
    return load_file(folder / FILE)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 5 + index, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def settings_of(folder: Path) -> ReferenceSettings:
    return ReferenceSettings(images=str(folder), preprocessing=PreprocessingSettings(crop="center", size=4))


def test_images_of_a_folder_give_statistics_and_features(real: Path, tmp_path: Path) -> None:
    reference = stage(settings_of(real))
    assert (reference.has_features, reference.work) == (True, 12.0)
    found = computed(reference, tmp_path / "out")
    rows = reference._set.read(range(12)).reshape(12, -1)[:, :2].astype(float)
    np.testing.assert_allclose(found["pooled.mean"], rows.mean(0))
    np.testing.assert_allclose(found["pooled.cov"], np.cov(rows, rowvar=False))
    assert len({each.removesuffix(".mean") for each in found if each.endswith("mean")}) == 3


def test_the_stage_is_another_with_other_preprocessing(real: Path) -> None:
    other = ReferenceSettings(images=str(real), preprocessing=PreprocessingSettings(crop="none", size=4))
    assert stage(settings_of(real)).digest == stage(settings_of(real)).digest != stage(other).digest


def test_a_damaged_image_leaves_no_statistics(real: Path, tmp_path: Path) -> None:
    content = (real / "11.png").read_bytes()
    (real / "11.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"11\.png cannot be read as an image"):
        computed(stage(settings_of(real)), tmp_path / "out")
    assert not (tmp_path / "out" / FILE).exists()


@pytest.mark.parametrize("spatial", [True, False])
def test_an_archive_gives_the_features_that_it_has(tmp_path: Path, spatial: bool) -> None:
    """guided-diffusion's layout, and that of pytorch-fid, clean-fid and torch-fidelity."""
    arrays = {"mu": np.arange(2.0), "sigma": np.eye(2)}
    arrays |= {"mu_s": np.arange(3.0), "sigma_s": 2 * np.eye(3)} if spatial else {}
    np.savez(tmp_path / "a.npz", **arrays)
    reference = stage(ReferenceSettings(statistics=str(tmp_path / "a.npz"), statistics_of="corners"))
    assert not reference.has_features
    found = computed(reference, tmp_path / "out")
    np.testing.assert_array_equal(found["pooled.mean"], np.arange(2.0))
    np.testing.assert_array_equal(found["pooled.cov"], np.eye(2))
    assert ("spatial.mean" in found) is spatial
    assert "logits.mean" not in found
