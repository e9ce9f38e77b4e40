"""Weights of a denoiser from a diffusers folder."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.quant.model import QuantModel

PATTERN = "diffusion_pytorch_model*.safetensors"
"""How diffusers names the files of a model's weights."""


def checkpoint_digest(folder: Path) -> str:
    """Return the SHA-256 over a folder's weight files.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    return hashlib.sha256("".join(file_digest(path) for path in _files(folder)).encode("ascii")).hexdigest()


def load_checkpoint(model: QuantModel, folder: Path) -> None:
    """Put the weights of a diffusers folder in place of a denoiser's own.

    Args:
        model: of the same architecture.
        folder: a model's own folder, or a pipeline's, whose ``unet`` it is.

    Raises:
        DataError: files are missing or damaged, or they are of another model.
    """
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        try:
            tensors |= load_file(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(f"{path} is not a readable safetensors file ({error})") from error
    own = model.module.state_dict()
    strange = sorted(own.keys() ^ tensors.keys()) or [name for name in own if own[name].shape != tensors[name].shape]
    if strange:
        raise DataError(
            f"{folder} holds another model than the workload's: they differ in {strange[0]!r}"
            + (f" and {len(strange) - 1} more tensors" if len(strange) > 1 else "")
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def _files(folder: Path) -> list[Path]:
    for each in (folder, folder / "unet"):
        found = sorted(each.glob(PATTERN))
        if found:
            return found
    raise DataError(f"{folder} holds no weights of a denoiser ({PATTERN}): name a model's folder or a pipeline's")
