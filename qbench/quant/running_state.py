"""The network's running state over all calibration rows, moved on segment by segment.

Reconstruction needs every block's inputs and targets. Carrying the state of all rows along costs one pass over the
network, where starting anew for each block would cost one pass a block.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from qbench.diffusion.structures import Segment, State
from qbench.errors import StageError
from qbench.quant.data import CalibrationData
from qbench.quant.model import QuantModel


class Budget:
    """How much may be kept on the device; what is more goes to memory-mapped files.

    Args:
        size: in bytes.
        folder: where the files go, None for the system's own place. They have no name left once they are open, so
            nothing remains of them, however the process ends.

    Attributes:
        used: bytes on the device now.
        spilled: bytes in files now.
    """

    def __init__(self, size: int, folder: Path | None = None) -> None:
        self._size = size
        self._folder = folder
        self.used = 0
        self.spilled = 0

    def rows(self, count: int, like: Tensor) -> Rows:
        """Return room for ``count`` rows that look like those of a tensor [batch, ...]."""
        size = count * like[0].numel() * like.element_size()
        if self.used + size <= self._size:
            rows = Rows(like.new_empty((count, *like.shape[1:])), like.device)
            self.used += size
            weakref.finalize(rows, self._give_back, size, 0)
        else:
            rows = Rows(self._mapped(count, like), like.device)
            self.spilled += size
            weakref.finalize(rows, self._give_back, 0, size)
        return rows

    def _mapped(self, count: int, like: Tensor) -> Tensor:
        shape = torch.Size((count, *like.shape[1:]))
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="qbench-rows-") as file:
                _occupy(file.fileno(), shape.numel() * like.element_size())
                return torch.from_file(file.name, True, shape.numel(), dtype=like.dtype).view(shape)
        except (OSError, RuntimeError) as error:
            raise StageError(f"calibration data does not fit the cache and cannot go to a file: {error}") from error

    def _give_back(self, used: int, spilled: int) -> None:
        self.used -= used
        self.spilled -= spilled


class Rows:
    """A tensor [count, ...] that lies on the device or in a file, and is handed out on the device."""

    def __init__(self, tensor: Tensor, device: torch.device) -> None:
        self._tensor = tensor
        self._device = device

    def __len__(self) -> int:
        return len(self._tensor)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        if isinstance(rows, Tensor):
            rows = rows.to(self._tensor.device)
        return self._tensor[rows].to(self._device)

    def write(self, rows: slice, values: Tensor) -> None:
        """Put values in place of some rows."""
        self._tensor[rows] = values.to(self._tensor.device)


class Indexed(Protocol):
    """Something that hands out rows."""

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return some rows, on the device."""
        ...


class RunningState:
    """The state of all calibration rows before one segment.

    Args:
        model: the model.
        data: where it starts.
        budget: what its rows are counted against.
    """

    def __init__(self, model: QuantModel, data: CalibrationData, budget: Budget) -> None:
        self._model = model
        self._data = data
        self._budget = budget
        self._h: Indexed = data.x
        self._embedding: Indexed | None = None
        self._skips: tuple[Indexed, ...] = ()

    @property
    def h(self) -> Indexed:
        """The running tensor of all rows."""
        return self._h

    @property
    def embedding(self) -> Indexed | None:
        """The embedding of all rows."""
        return self._embedding

    def batch(self, rows: slice | Tensor, skips: int | None = None) -> State:
        """Return the state of some rows, with the last few skips or, as None says, with all of them."""
        kept = self._skips if skips is None else self._skips[len(self._skips) - skips :]
        return State(
            h=self._h[rows],
            timesteps=self._data.timesteps[rows],
            embedding=None if self._embedding is None else self._embedding[rows],
            skips=tuple(skip[rows] for skip in kept),
            context={name: tensor[rows] for name, tensor in self._data.context.items()},
        )

    @torch.no_grad()
    def behind(self, segment: Segment) -> RunningState:
        """Return the state behind a segment, run as the model is set now. What it leaves alone is shared."""
        following = RunningState(self._model, self._data, self._budget)
        for rows in slices(len(self._data), self._data.batch_size):
            before = self.batch(rows)
            known = {id(before.h): self._h, id(before.embedding): self._embedding}
            known |= {id(skip): kept for skip, kept in zip(before.skips, self._skips, strict=True)}
            with self._model.at(self._data.step_indices[rows]):
                after = segment.run(self._model.module, before)
            following._take(after, known, rows)
        return following

    def _take(self, after: State, known: dict[int, Indexed | None], rows: slice) -> None:
        """Keep a batch's state, each tensor once: those of the state before stay where they are."""

        def keep(tensor: Tensor, room: Indexed | None) -> Indexed:
            kept = known.get(id(tensor))
            if kept is None:
                is_first = rows.start == 0 or room is None
                kept = self._budget.rows(len(self._data), tensor) if is_first else room
                assert isinstance(kept, Rows)
                kept.write(rows, tensor)
                known[id(tensor)] = kept
            return kept

        self._h = keep(after.h, self._h)
        if after.embedding is not None:
            self._embedding = keep(after.embedding, self._embedding)
        rooms = self._skips or (None,) * len(after.skips)
        self._skips = tuple(keep(skip, room) for skip, room in zip(after.skips, rooms, strict=True))


def _occupy(file: int, size: int) -> None:
    """Make room on the disk now: a mapped file that finds none later ends the process without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    block = bytes(2**20)
    for start in range(0, size, len(block)):
        part = block[: size - start]
        while part:
            part = part[os.write(file, part) :]  # it may write less than it was given


def slices(count: int, size: int) -> list[slice]:
    """Cut ``count`` rows into slices of at most ``size``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
