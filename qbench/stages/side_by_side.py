"""Batches worked on at the same time: a small network keeps one core of a CPU busy, not many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

Run = Callable[[range, Callable[[], None]], None]
"""Works on a batch; calls its second argument now and then, which raises ``Stopped`` if the batch is to be given up."""


class Stopped(Exception):
    """Raised in a batch that nobody needs any more."""


def side_by_side(device: torch.device, batches: Sequence[range], run: Run) -> None:
    """Run something on every batch, on a CPU several at a time, each with its share of torch's threads.

    Args:
        device: where it computes; on anything but a CPU one follows the other.
        batches: the batches.
        run: works on one of them.

    Raises:
        Exception: what the first batch that fails raises, first in the order of the batches.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(batches)) if device.type == "cpu" else 1
    if workers == 1:
        for batch in batches:
            run(batch, lambda: None)
        return
    needed = len(batches)  # batches from here on are not needed any more

    def attempt(index: int) -> None:
        nonlocal needed

        def go_on() -> None:
            if index >= needed:
                raise Stopped

        go_on()
        try:
            run(batches[index], go_on)
        except Exception:
            needed = min(needed, index)
            raise

    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    futures: list[Future[None]] = []
    try:
        for index in range(len(batches)):
            futures.append(pool.submit(attempt, index))  # noqa: PERF401 (an interruption must find those before it)
        while wait(futures, timeout=0.1).not_done:
            pass  # a wait without end would not hear of Ctrl-C everywhere
        for future in futures:
            future.result()
    finally:
        needed = 0
        pool.shutdown(wait=False, cancel_futures=True)
        _outlast([each for each in futures if not each.cancelled()])
        pool.shutdown()
        torch.set_num_threads(threads)  # some libraries take the workers' number for everybody's


def _outlast(running: Sequence[Future[None]]) -> None:
    """Wait for batches that are being given up, though Ctrl-C is pressed once more.

    Joining a thread is over when it is interrupted, and Python ends with an abort if torch still computes in one then.
    """
    while True:
        try:
            wait(running)
            return
        except KeyboardInterrupt:
            continue  # what was pressed first is on its way already
