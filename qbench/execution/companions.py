"""Further processes on this machine that work on the same plan and store.

They are what a second run beside the first would be: stages are claimed in the store, so nothing is done twice, and
only the first process keeps records. A process that finds nothing left to do ends; none outlives the first one. Ctrl-C
reaches every process of a terminal, but only the first one hears it, and ends the others.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

from qbench.errors import QbenchError
from qbench.execution.listener import Listener
from qbench.plan import Plan
from qbench.stages.stage import Runtime
from qbench.store import Store


@contextmanager
def companions(count: int, plan: Plan, store: Store, runtime: Runtime) -> Iterator[None]:
    """Let processes work on a plan while the context lasts.

    Args:
        count: how many, 0 for none.
        plan: what is wanted.
        store: where artefacts are.
        runtime: of every process.
    """
    # A forked process would inherit the threads' locks of torch without the threads.
    context = get_context("spawn")
    processes = [
        context.Process(target=_work, args=(plan, store.root, runtime), name=f"qbench-{index + 2}")
        for index in range(count)
    ]
    try:
        # It would let Ctrl-C through again when the first process starts it.
        resource_tracker.ensure_running()
        with ctrl_c_held_back():
            for process in processes:
                process.start()
        yield
    finally:
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join()


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Hold SIGINT back while the context lasts. Processes that are started meanwhile inherit that and never hear it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(plan: Plan, root: Path, runtime: Runtime) -> None:
    from qbench.execution.inline import Inline  # which starts companions, and so imports this

    Thread(target=end_with_parent, daemon=True).start()
    try:
        Inline(plan, Store(root), runtime, Listener()).run(lambda cell: None)
    except QbenchError:
        # The first process meets the same trouble and says so.
        return


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, whatever it is at."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
