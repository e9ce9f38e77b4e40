"""A step correction as a safetensors file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qbench.diffusion.step_correction import StepCorrection
from qbench.errors import DataError, StageError

NAMES = ("slope", "bias", "variance")


def save_correction(correction: StepCorrection, path: Path) -> None:
    """Write a correction in float32."""
    tensors = {name: getattr(correction, name).detach().to("cpu", torch.float32).contiguous() for name in NAMES}
    save_file(tensors, path)


def load_correction(path: Path) -> StepCorrection:
    """Load what ``save_correction`` wrote.

    Raises:
        DataError: the file is damaged or holds something else.
    """
    try:
        tensors = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as a step correction ({error})") from error
    if sorted(tensors) != sorted(NAMES):
        raise DataError(f"{path} holds no step correction: it has {', '.join(sorted(tensors)) or 'nothing'}")
    try:
        return StepCorrection(**{name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except StageError as error:
        raise DataError(f"{path}: {error}") from error
