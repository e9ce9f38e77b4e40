"""Checkpoints of a training run: weights, their running average, Adam's moments and the place in the run."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qbench.errors import DataError
from qbench.zoo.settings import TrainingSettings
from qbench.zoo.tensor_file import read_tensors, write_tensors

FILE_NAME = "checkpoint.safetensors"
"""Name of the checkpoint in a run's folder; there is one, always the latest."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """Everything that changes while a run goes on."""

    model: nn.Module
    """The network in training; its parameters are its only state."""
    average: dict[str, Tensor]
    """Running average of every parameter."""
    optimizer: torch.optim.AdamW
    """Created over `model.parameters()` in one group."""
    iteration: int = 0
    """Iterations done."""
    smoothed_loss: float | None = None
    """Loss averaged over the last iterations, for the log."""
    seconds: float = 0.0
    """Time spent so far, over all sessions of the run."""


def fresh_state(model: nn.Module, settings: TrainingSettings) -> TrainingState:
    """State before the first iteration.

    Raises:
        ValueError: The model keeps buffers, which neither the average nor a checkpoint would hold.
    """
    if not all(isinstance(each, nn.Parameter) for each in stored_parameters(model).values()):
        raise ValueError(f"{type(model).__name__} keeps buffers; only parameters are averaged and saved.")
    average = {name: parameter.detach().clone() for name, parameter in stored_parameters(model).items()}
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    return TrainingState(model, average, optimizer)


def stored_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return what a model keeps, under the names that it has in files, whatever a library's release calls it."""
    found: dict[str, Tensor] = model.state_dict(keep_vars=True)
    return found


def save_checkpoint(state: TrainingState, settings: TrainingSettings, folder: Path) -> Path:
    """Writes the state; the former checkpoint stays valid until the new one is complete."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in stored_parameters(state.model).items():
        tensors[f"model.{name}"] = parameter
        tensors[f"average.{name}"] = state.average[name]
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = state.optimizer.state[parameter][moment]
    progress = {"iteration": state.iteration, "smoothed_loss": state.smoothed_loss, "seconds": state.seconds}
    metadata = {"settings": json.dumps(settings.described(), sort_keys=True), "progress": json.dumps(progress)}
    path = folder / FILE_NAME
    write_tensors(path, tensors, metadata)
    return path


def restore_checkpoint(state: TrainingState, settings: TrainingSettings, folder: Path) -> bool:
    """Brings a fresh state to where the folder's checkpoint stands, if there is one.

    Returns:
        Whether there was a checkpoint.

    Raises:
        DataError: The checkpoint was made with other settings, or is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return False
    file = read_tensors(path)
    _refuse_other_settings(json.loads(file.metadata.get("settings", "{}")), settings, path)
    progress = json.loads(file.metadata["progress"])
    with torch.no_grad():
        for name, parameter in stored_parameters(state.model).items():
            parameter.copy_(file.tensors[f"model.{name}"])
            state.average[name].copy_(file.tensors[f"average.{name}"])
            state.optimizer.state[parameter] = {
                "step": torch.tensor(float(progress["iteration"]), device=parameter.device),
                **{moment: file.tensors[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS},
            }
    state.iteration = int(progress["iteration"])
    state.smoothed_loss = progress["smoothed_loss"]
    state.seconds = float(progress["seconds"])
    return True


def _refuse_other_settings(found: dict[str, object], settings: TrainingSettings, path: Path) -> None:
    wanted = settings.described()
    differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if differing:
        differences = ", ".join(f"{key} {found.get(key)} there, {wanted.get(key)} asked" for key in differing)
        raise DataError(
            f"{path} was made with other settings ({differences}). Use the same ones, another --out, or --fresh."
        )
