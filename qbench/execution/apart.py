"""A process apart that computes the stages of this one, so that it can be ended when a stage takes too long."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from qbench.errors import QbenchError
from qbench.execution.attempt import attempt
from qbench.execution.companions import ctrl_c_held_back, end_with_parent
from qbench.execution.limit import out_of_time
from qbench.execution.outcome import Failed, Outcome
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store

POLL_SECONDS = 0.5
"""How long the death of the process may stay unseen, where a process of its own keeps its end of the line open."""


class Apart:
    """A process that tries stages one after the other. If it dies, the next stage gets another one.

    Args:
        store: where artefacts are.
        runtime: of the process, with the limit of a stage's time.
    """

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._process: Any = None
        self._line: Connection | None = None
        self._at_work: Stage | None = None

    def attempt(
        self,
        stage: Stage,
        started: Callable[[], None],
        report: Callable[[float], None],
        note: Callable[[str], None],
    ) -> Outcome:
        """Try a stage there; see ``qbench.execution.attempt``.

        Raises:
            StoreError: the store gave out; what was finished is kept.
        """
        if self._process is not None and not self._process.is_alive():
            self.end()
        line = self._line if self._line is not None else self._start()
        self._at_work = stage
        with suppress(OSError):  # if it died just now, there is nothing to hear
            line.send(stage)
        while (heard := self._hear(line)) is not None:
            word, value = heard
            if word == "started":
                started()
            elif word == "report":
                report(value)
            elif word == "note":
                note(value)
            else:
                self._at_work = None
                if isinstance(value, QbenchError):
                    raise value
                outcome: Outcome = value
                return outcome
        code = self._process.exitcode
        self.end()
        return out_of_time(stage, self._store, self._runtime.stage_limit) or Failed(
            f"its process died ({f'signal {-code}' if code < 0 else f'exit code {code}'}): "
            "a crash in native code or a lack of memory"
        )

    def end(self) -> None:
        """End the process, whatever it is at, and remove what it was writing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._line is not None:
            self._line.close()
        if self._at_work is not None:
            self._store.sweep(self._at_work.digest)
        self._process = self._line = self._at_work = None

    def _start(self) -> Connection:
        context = get_context("spawn")  # see companions.py
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._store.root, self._runtime), name="qbench-apart")
        try:
            resource_tracker.ensure_running()
            with ctrl_c_held_back():
                process.start()
                self._process, self._line = process, ours
        finally:
            theirs.close()
            if self._line is not ours:
                ours.close()
        return ours

    def _hear(self, line: Connection) -> tuple[str, Any] | None:
        """Return the next word from the process; None if it has died."""
        try:
            while not line.poll(POLL_SECONDS):
                if not self._process.is_alive() and not line.poll(0):
                    return None
            heard: tuple[str, Any] = line.recv()
        except (EOFError, OSError):  # with half a message, too
            self._process.join(POLL_SECONDS)
            self._process.kill()
            self._process.join()
            return None
        return heard


def _work(line: Connection, root: Path, runtime: Runtime) -> None:
    Thread(target=end_with_parent, daemon=True).start()
    lock = Lock()

    def tell(word: str, value: Any = None) -> None:
        with lock:  # stages may report from several threads
            line.send((word, value))

    try:
        store = Store(root)
        while True:
            outcome = attempt(
                line.recv(),
                store,
                runtime,
                started=lambda: tell("started"),
                report=lambda amount: tell("report", amount),
                note=lambda sentence: tell("note", sentence),
            )
            tell("outcome", outcome)
    except QbenchError as error:
        tell("outcome", error)
    except (EOFError, BrokenPipeError):  # the other end is gone
        return
