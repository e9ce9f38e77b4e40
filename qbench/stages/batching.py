"""How many rows a stage works on at a time: as many as the device holds, and fewer as soon as it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from qbench.devices import free_memory, is_out_of_memory
from qbench.errors import StageError
from qbench.stages.side_by_side import Run, side_by_side
from qbench.stages.stage import DEFAULT_BATCH_SIZE, Work

LARGEST_BATCH_SIZE = 250
"""What an accelerator is tried with: a shard's images, over which no batch reaches."""
RETRIES = 2
"""How often work that cannot be cut is done again with half the rows at a time."""

_known: dict[tuple[str, str, int | None], int] = {}
"""What turned out to fit in this process: rows by what is done, the device, and what was asked for."""


class Batches:
    """The batches of one stage.

    Where ``--batch-size`` says nothing, an accelerator is tried with ``LARGEST_BATCH_SIZE`` rows; the first batch is
    the trial, as memory gives out in the first call of a network if it does. A CPU, where larger batches gain nothing,
    has ``DEFAULT_BATCH_SIZE``. Whenever memory gives out, what is not done yet is cut again, into batches of half the
    size, and so is whatever comes later in this process. What was done stays.

    Args:
        work: the stage's.
        what: what is done, such as "sampling tiny-ddim".
        device: where.
        automatic: rows at a time where nobody asks for another number; None as said above.
    """

    def __init__(self, work: Work, what: str, device: torch.device, automatic: int | None = None) -> None:
        self._work = work
        self._what = what
        self._device = device
        self._key = (what, str(device), work.runtime.batch_size)
        if automatic is None:
            automatic = DEFAULT_BATCH_SIZE if device.type == "cpu" else LARGEST_BATCH_SIZE
        self.size = _known.get(self._key, work.runtime.batch_size or automatic)
        self._used: dict[int, None] = {}

    def run(self, count: int, run: Run, together: bool = False) -> None:
        """Run something on all rows, batch by batch.

        Args:
            count: the rows.
            run: works on one batch; done again from its beginning, on fewer rows, if memory gives out.
            together: whether on a CPU several batches are worked on at a time.

        Raises:
            StageError: not even one row fits.
            Exception: whatever the first batch that fails otherwise raises.
        """
        to_do = [range(count)]
        while to_do:
            batches = [piece for rows in to_do for piece in cut(rows, self.size)]
            to_do = self._round(batches, run, together)
        self._tell()

    def whole(self, rows: int, run: Callable[[int], None]) -> None:
        """Run something that cannot be cut, all of it again with half the rows at a time if memory gives out.

        Args:
            rows: how many there are.
            run: is given the rows at a time.

        Raises:
            StageError: it did not fit ``RETRIES`` times more either.
        """
        for attempt in range(1 + RETRIES):
            self._used = {self.size: None}
            if self._fits(lambda: run(self.size)):
                self._tell()
                return
            self._halve(max(1, min(self.size, rows)), is_last=attempt == RETRIES)

    def _round(self, batches: list[range], run: Run, together: bool) -> list[range]:
        """Run batches of one size until one does not fit; return the rows that are not done."""
        size, left, failed = self.size, list[range](), list[range]()

        def attempt(batch: range, go_on: Callable[[], None]) -> None:
            if failed:
                left.append(batch)
            elif self._fits(lambda: run(batch, go_on)):
                self._used[size] = None
            else:
                failed.append(batch)

        if together:
            side_by_side(self._device, batches, attempt)
        else:
            for batch in batches:
                attempt(batch, lambda: None)
        if failed:
            self._halve(max(map(len, failed)))
        return list(_joined([*left, *failed]))

    def _fits(self, run: Callable[[], None]) -> bool:
        try:
            run()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return True
        # Only here the exception is gone, and with it the frames that held the tensors.
        free_memory(self._device)
        return False

    def _halve(self, tried: int, is_last: bool = False) -> None:
        too_little = f"{self._what}: {self._device} has too little memory for a batch of {tried}"
        if tried == 1 or is_last:
            raise StageError(
                f"{too_little}: make room on it, or take another --device (`qbench doctor` lists them)"
                + (", or a lower --batch-size or --cache-gb" if is_last else "")
            )
        self.size = _known[self._key] = (tried + 1) // 2
        self._work.note(f"{too_little}; going on with {self.size}")

    def _tell(self) -> None:
        """Let the manifest say what the sizes were, unless they are as usual."""
        sizes = [*self._work.made_with.get("batch_sizes", ()), *self._used]
        if set(sizes) - {DEFAULT_BATCH_SIZE}:
            self._work.made_with["batch_sizes"] = list(dict.fromkeys(sizes))


def cut(rows: range, size: int) -> Iterator[range]:
    """Cut rows into batches of at most ``size``."""
    for start in range(rows.start, rows.stop, size):
        yield range(start, min(start + size, rows.stop))


def _joined(batches: Iterable[range]) -> Iterator[range]:
    """Put batches together that follow on each other."""
    joined: range | None = None
    for batch in sorted(batches, key=lambda each: each.start):
        if joined is not None and joined.stop == batch.start:
            joined = range(joined.start, batch.stop)
        else:
            if joined is not None:
                yield joined
            joined = batch
    if joined is not None:
        yield joined
