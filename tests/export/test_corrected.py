"""An exported cell whose sampler takes something back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from qbench import load_quantized
from qbench.diffusion.correction_file import load_correction

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {
    "calibration": {"steps": 2, "per_step": 2},
    "weights": {"estimator": "min-max"},
    "rounding": {"iterations": 1, "batch_size": 2},
    "activations": {"estimator": "min-max"},
    "step_sizes": {"iterations": 1, "batch_size": 2},
    "correction_calibration": {"per_step": 4},
}
SUITE: dict[str, Any] = {
    "name": "corrected",
    "workloads": [{"name": "tiny-ddim", "sampler": {"eta": 1}, "as": "noisy"}],
    "methods": [
        {"name": "ptqd", "settings": QUICK | {"slope": "both"}},
        {"name": "ptqd", "settings": QUICK | {"slope": "none", "bias": False, "variance": False}, "as": "plain"},
    ],
    "bits": ["W3A6"],
    "metrics": ["mse-to-fp"],
    "samples": 3,
    "steps": 3,
}


def test_it_samples_the_same_images(qbench: Callable[..., Any], workplace: Path) -> None:
    Path("corrected.yaml").write_text(yaml.safe_dump(SUITE))
    for arguments in (["run", "corrected.yaml"], ["export", "corrected/noisy.ptqd.W3A6.s0", "--to", "exported"]):
        answer = qbench(*arguments)
        assert answer.code == 0, answer.err

    pipeline: Any = load_quantized("exported", device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    found = pipeline(num_images=3, output_type="np").images.transpose(0, 3, 1, 2)
    corrected, plain = (images(label) for label in ("ptqd", "plain"))
    np.testing.assert_array_equal((found * 255).round().astype(np.uint8), corrected)
    assert not np.array_equal(corrected, plain)
    (path,) = Path("exported").rglob("correction.safetensors")
    correction = load_correction(path)
    assert correction.bias.shape == (3, 4)
    assert bool(correction.bias.any())
    assert bool(correction.variance.all())


def images(label: str) -> NDArray[np.uint8]:
    """Return what a cell sampled, uint8 [images, channels, height, width]."""
    record = json.loads(Path(f"results/corrected/records/noisy.{label}.W3A6.s0.json").read_text())
    (digest,) = [each["digest"] for each in record["stages"] if each["stage"] == "sample"]
    found: NDArray[np.uint8] = np.load(Path("store/artefacts/sample") / digest / "images.npy")
    return found
