"""Reading a checkpoint file: tensors by name, and nothing that could run."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from qbench.errors import DataError

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
TRAINING_PACKAGES = ("lightning", "ldm", "main", "numpy", "omegaconf", "pytorch_lightning", "taming")
"""Packages that training scripts leave objects of beside the weights: sd-v1-4.ckpt holds the class
``pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint`` and a numpy scalar."""

EMA_PREFIX = "model_ema."
_EMA_COUNTERS = frozenset({"model_ema.decay", "model_ema.num_updates"})


class _Inert:
    """Takes the place of whatever a pickle names beside tensors: it accepts anything and does nothing."""

    def __init__(self, *_arguments: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, on the CPU and in the types they were saved in.

    A pickle is read by torch's unpickler for weights only, which knows tensors and plain containers. Objects of
    training frameworks are replaced by ones that do nothing, so that nothing in the file is ever imported or run; a
    file that names anything else is refused.

    Args:
        path: a .safetensors, .ckpt, .pt, .pth or .bin file; a dictionary under ``state_dict`` in it is unwrapped.

    Raises:
        DataError: it is missing, truncated, of another kind, or a pickle that holds more than weights.
    """
    if not path.is_file():
        raise DataError(f"the checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DataError(_damaged(path)) from error
    if path.suffix not in PICKLES:
        known = ", ".join(sorted({*PICKLES, ".safetensors"}))
        raise DataError(f"the checkpoint {path} is of an unknown kind; known are {known}")
    return _tensors(path, _unpickle(path))


def averaged(path: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Put the running averages of weights (EMA), which latent diffusion is evaluated with, in the weights' place.

    ``model_ema.`` and a name without its dots is the average of ``model.`` and that name (LitEma of
    CompVis/latent-diffusion, ldm/modules/ema.py).

    Args:
        path: of the checkpoint, for messages.
        tensors: of the checkpoint.

    Returns:
        The tensors with the averages under the weights' own names, and whether there were any.

    Raises:
        DataError: averages that belong to no weight, or weights without one.
    """
    averages = {name for name in tensors if name.startswith(EMA_PREFIX)} - _EMA_COUNTERS
    if not averages:
        return dict(tensors), False
    chosen = {name: tensor for name, tensor in tensors.items() if not name.startswith(EMA_PREFIX)}
    sources = {n: EMA_PREFIX + n.removeprefix("model.").replace(".", "") for n in chosen if n.startswith("model.")}
    odd = sorted(averages.symmetric_difference(sources.values()))
    if odd:
        raise DataError(
            f"the checkpoint {path} holds averaged weights (EMA) that are not those of its weights; "
            f"the first that differ: {', '.join(odd[:3])}"
        )
    return chosen | {name: tensors[source] for name, source in sources.items()}, True


def _unpickle(path: Path) -> Any:
    try:
        zipped = zipfile.is_zipfile(path)
        found = get_unsafe_globals_in_checkpoint(path) if zipped else []
        harmless = [name for name in found if name.partition(".")[0] in TRAINING_PACKAGES]
        if len(harmless) < len(found):
            raise DataError(_refused(path, ", ".join(sorted(set(found).difference(harmless)))))
        with safe_globals([(_Inert, name) for name in harmless]), warnings.catch_warnings():
            # What it cannot read of another protocol is refused all the same.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # What torch says spreads over several lines and ends in the advice to switch the protection off.
        unsupported = str(error).partition("GLOBAL ")[2].partition(" ")[0]
        raise DataError(_refused(path, unsupported) if unsupported else _damaged(path)) from error
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise DataError(_damaged(path)) from error


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise DataError(f"the checkpoint {path} holds no dictionary of tensors")
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise DataError(f"the checkpoint {path} holds no tensors by name")
    return tensors


def _damaged(path: Path) -> str:
    return f"the checkpoint {path} is truncated, damaged, or not of the kind that its name says; fetch it again"


def _refused(path: Path, names: str) -> str:
    return (
        f"the checkpoint {path} is a pickle that holds more than weights ({names}), which is not loaded as it could "
        "run code; if you trust it, save its state_dict with safetensors.torch.save_file elsewhere and name that file"
    )
