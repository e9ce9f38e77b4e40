"""A correction comes back as it was written, and nothing else is taken for one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qbench.diffusion.correction_file import load_correction, save_correction
from qbench.diffusion.step_correction import StepCorrection
from qbench.errors import DataError

CORRECTION = StepCorrection(torch.tensor([0.1, -0.2]), torch.tensor([[0.5], [0.25]]), torch.tensor([0.0, 3.0]))


def test_it_comes_back_to_the_bit(tmp_path: Path) -> None:
    save_correction(CORRECTION, tmp_path / "correction.safetensors")
    found = load_correction(tmp_path / "correction.safetensors")
    for name in ("slope", "bias", "variance"):
        assert torch.equal(getattr(found, name), getattr(CORRECTION, name))


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"slope": CORRECTION.slope, "bias": CORRECTION.bias}, "holds no step correction: it has bias, slope"),
        ({"slope": CORRECTION.slope, "bias": CORRECTION.slope, "variance": CORRECTION.slope}, "have the shapes"),
        ({"slope": CORRECTION.slope, "bias": CORRECTION.bias, "variance": -CORRECTION.variance}, "negative variance"),
    ],
)
def test_what_is_no_correction_is_refused(tensors: dict[str, torch.Tensor], told: str, tmp_path: Path) -> None:
    path = tmp_path / "correction.safetensors"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    with pytest.raises(DataError, match=told) as caught:
        load_correction(path)
    assert str(path) in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "correction.safetensors"
    path.write_bytes(b"\x08")
    with pytest.raises(DataError, match="cannot be read as a step correction"):
        load_correction(path)
