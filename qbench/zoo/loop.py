"""The training loop that all models of the zoo share."""

import csv
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from qbench.zoo.checkpoint import (
    TrainingState,
    fresh_state,
    restore_checkpoint,
    save_checkpoint,
    stored_parameters,
)
from qbench.zoo.settings import TrainingSettings
from qbench.zoo.tensor_file import write_tensors

WEIGHTS_NAME = "weights.safetensors"
"""Name of the finished weights in a run's folder: the running average, rounded to fp16."""

LOG_NAME = "loss.csv"
"""Name of the log in a run's folder."""

LOG_COLUMNS = ("iteration", "images", "loss", "learning_rate", "seconds")

BatchLoss = Callable[[nn.Module, int], Tensor]
"""Loss of one iteration: (model, iteration) to a scalar; must depend on nothing else that changes."""


@dataclass(frozen=True)
class Moment:
    """Where a run stands."""

    iteration: int
    """Iterations done."""
    images: int
    """Images seen."""
    loss: float
    """Loss averaged over the last hundred iterations or so."""
    learning_rate: float
    """Rate of the last iteration."""
    seconds: float
    """Time spent so far, over all sessions of the run."""


def run_training(
    model: nn.Module,
    batch_loss: BatchLoss,
    settings: TrainingSettings,
    folder: Path,
    *,
    resume: bool = True,
    watch: Callable[[Moment], None] = lambda moment: None,
    checkpoint_every: int = 500,
    log_every: int = 50,
) -> Path:
    """Trains a model, or goes on where the folder's checkpoint stands.

    Args:
        model: Initialized network on the settings' device.
        batch_loss: Loss of one iteration.
        settings: What decides the result.
        folder: Gets the checkpoint, the log and the finished weights.
        resume: Whether to use a checkpoint that is there; False starts again from nothing.
        watch: Called after every iteration.
        checkpoint_every: Iterations between checkpoints.
        log_every: Iterations between lines of the log.

    Returns:
        Path of the finished weights.

    Raises:
        DataError: The checkpoint that is there was made with other settings.
        KeyboardInterrupt: Ctrl-C or a request to end; the checkpoint was written first.
    """
    state = fresh_state(model, settings)
    if resume:
        restore_checkpoint(state, settings, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _cut_log(folder / LOG_NAME, state.iteration)
    model.train()
    with _asked_to_stop() as stop:
        while state.iteration < settings.iterations:
            moment = _advance(state, batch_loss, settings)
            watch(moment)
            stopping, ending = stop.is_set(), moment.iteration == settings.iterations
            if ending or moment.iteration % log_every == 0:
                _append_log(folder / LOG_NAME, moment)
            if ending or stopping or moment.iteration % checkpoint_every == 0:
                save_checkpoint(state, settings, folder)
            if stopping:
                raise KeyboardInterrupt
    weights = {name: tensor.half() for name, tensor in state.average.items()}
    recipe = {"name": settings.name, "recipe": json.dumps(settings.described(), sort_keys=True)}
    write_tensors(folder / WEIGHTS_NAME, weights, recipe)
    return folder / WEIGHTS_NAME


def _advance(state: TrainingState, batch_loss: BatchLoss, settings: TrainingSettings) -> Moment:
    started = time.perf_counter()
    rate = settings.rate(state.iteration)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    loss = batch_loss(state.model, state.iteration)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
    state.optimizer.step()
    _average(state, settings.averaging(state.iteration))
    state.iteration += 1
    value = float(loss.detach())
    state.smoothed_loss = value if state.smoothed_loss is None else 0.99 * state.smoothed_loss + 0.01 * value
    state.seconds += time.perf_counter() - started
    return Moment(state.iteration, state.iteration * settings.batch, state.smoothed_loss, rate, state.seconds)


@torch.no_grad()
def _average(state: TrainingState, decay: float) -> None:
    for name, parameter in stored_parameters(state.model).items():
        state.average[name].lerp_(parameter, 1.0 - decay)


def _append_log(path: Path, moment: Moment) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(LOG_COLUMNS)
        rate, seconds = f"{moment.learning_rate:.3e}", f"{moment.seconds:.1f}"
        writer.writerow((moment.iteration, moment.images, f"{moment.loss:.6f}", rate, seconds))


def _cut_log(path: Path, iteration: int) -> None:
    """Drops the lines that a session wrote after its last checkpoint."""
    if not path.exists():
        return
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if int(line.split(",")[0]) <= iteration]
    path.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Turns Ctrl-C and a termination request into a flag; a second one acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each, handler in former.items():
            signal.signal(each, handler)

    for number in former:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
