"""What a stage is computed under, and what the record says of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qbench.errors import QbenchError, StageError
from qbench.plugins import WORKLOADS
from qbench.stages import batching
from qbench.stages.computing import compute
from qbench.stages.quantized import Quantized
from qbench.stages.sample import FILE, Sample
from qbench.stages.stage import Runtime, Work
from qbench.workload import Workload


@pytest.fixture
def workload(fake_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    monkeypatch.setattr(batching, "_known", {})
    workload = WORKLOADS.load("micro")
    assert issubclass(workload, Workload)
    return workload(WORKLOADS.entry("micro"), workload.settings_class())


@pytest.fixture
def images(workload: Workload, tmp_path: Path) -> Callable[..., tuple[Any, dict[str, Any], list[str]]]:
    """Return images of the workload, what the manifest says beyond the usual, and what the user is told."""

    def sample(runtime: Runtime, stage: Any = None, count: int = 12) -> tuple[Any, dict[str, Any], list[str]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        said: list[str] = []
        work = Work({}, folder, runtime, lambda amount: None, said.append)
        compute(stage or Sample(workload, 0, 0, count, Quantized()), work)
        return np.load(folder / FILE), work.made_with, said

    return sample


Images = Callable[..., tuple[Any, dict[str, Any], list[str]]]


def limit_memory(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Let the denoiser run out of memory above a number of rows; return the sizes of its calls, as they come."""
    from micro_network import MicroDenoiser

    forward, calls = MicroDenoiser.forward, []

    def limited(self: Any, x: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        calls.append(len(x))
        if len(x) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, x, *arguments, **keywords)

    monkeypatch.setattr(MicroDenoiser, "forward", limited)
    return calls


def test_images_are_those_of_the_smaller_batch(
    images: Images, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    expected, _, _ = images(Runtime("cpu", 3))
    calls = limit_memory(monkeypatch, 4)
    found, made_with, said = images(Runtime("cpu", 10))
    np.testing.assert_array_equal(found, expected)
    assert made_with == {"batch_sizes": [3]}
    assert said == [
        "sampling micro: cpu has too little memory for a batch of 10; going on with 5",
        "sampling micro: cpu has too little memory for a batch of 5; going on with 3",
    ]
    assert calls == [10, 5] + [3] * 16  # four batches, four steps: none is done twice


def test_too_little_for_one_image_is_one_sentence(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0)
    with pytest.raises(StageError, match=r"^sampling micro: cpu has too little memory for a batch of 1: make room"):
        images(Runtime("cpu"))


def test_a_stage_without_batches_that_finds_too_little_memory_says_so(images: Images) -> None:
    class Greedy:
        kind = "score"

        def compute(self, work: Work) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    with pytest.raises(StageError, match=r"^cpu has too little memory for this stage \(CUDA out of memory\. Tried"):
        images(Runtime("cpu"), Greedy())


@pytest.mark.parametrize(("option", "keyword"), [("--tf32", "tf32"), ("--cuda-graphs", "cuda_graphs")])
def test_what_only_cuda_has_is_refused_elsewhere(images: Images, option: str, keyword: str) -> None:
    with pytest.raises(QbenchError, match=f"^{option} is for CUDA only, and the device here is cpu: leave it out"):
        images(Runtime("cpu", **{keyword: True}))


def test_convolutions_are_not_rounded_to_tf32_behind_the_users_back(images: Images) -> None:
    """Whichever of its two interfaces torch has."""
    backends: Any = torch.backends
    is_new = hasattr(backends.cudnn, "conv")
    owner, name, forbidden = (
        (backends.cudnn.conv, "fp32_precision", "ieee") if is_new else (backends.cudnn, "allow_tf32", False)
    )
    seen: list[Any] = []

    class Looks:
        kind = "score"

        def compute(self, work: Work) -> None:
            seen.append(getattr(owner, name))
            np.save(work.folder / FILE, np.zeros(1))

    images(Runtime("cpu"), Looks())
    assert seen == [forbidden]
    assert getattr(owner, name) != forbidden


def test_channels_last_is_told_and_changes_little(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional

    layouts: list[bool] = []
    convolve = functional.conv2d

    def watched(x: Any, weight: Any, *arguments: Any) -> Any:
        layouts.append(weight.is_contiguous(memory_format=torch.channels_last))
        return convolve(x, weight, *arguments)

    plain, usual, _ = images(Runtime("cpu"))
    monkeypatch.setattr(functional, "conv2d", watched)
    found, made_with, _ = images(Runtime("cpu", channels_last=True))
    assert usual == {}
    assert made_with == {"channels_last": True}
    assert np.abs(found.astype(int) - plain).max() <= 1
    assert layouts
    assert all(layouts)
