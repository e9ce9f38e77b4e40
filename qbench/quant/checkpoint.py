"""Weights of a denoiser from a diffusers folder."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.quant.model import QuantModel

NAME = "diffusion_pytorch_model.safetensors"
"""How diffusers names a model's weights, or before ``.index.json`` the list of files that they are shared out to."""


def checkpoint_digest(folder: Path) -> str:
    """Return the SHA-256 over a folder's weight files.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    return hashlib.sha256("".join(file_digest(path) for path in _files(folder)).encode("ascii")).hexdigest()


def load_checkpoint(model: QuantModel, folder: Path) -> dict[str, torch.dtype]:
    """Put the weights of a diffusers folder in place of a denoiser's own.

    Args:
        model: of the same architecture.
        folder: a model's own folder, or a pipeline's, whose ``unet`` it is.

    Returns:
        The type of each tensor in the file, by name.

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
        found = tensors[name]
        if not found.is_floating_point() or not bool(found.isfinite().all()):
            raise DataError(f"{folder}: {name!r} is not made of finite floating-point numbers")
        tensor.copy_(found)
    return {name: tensor.dtype for name, tensor in tensors.items()}


def _files(folder: Path) -> list[Path]:
    for each in (folder, folder / "unet"):
        if (each / NAME).is_file():
            return [each / NAME]
        index = each / f"{NAME}.index.json"
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
                beside = all(name == Path(name).name and name not in ("", "..") and "\0" not in name for name in names)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(f"{index} does not list the files of a model's weights") from error
            if not beside:
                raise DataError(f"{index} lists files that do not lie beside it")
            return [each / name for name in names]
    raise DataError(
        f"{folder.absolute()} holds no weights of a denoiser ({NAME}): name a model's or a pipeline's folder"
    )
