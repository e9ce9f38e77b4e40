"""The limit of a stage's time. What goes beyond it is ended with its process, and leaves where it was.

No exception reaches native code that hangs, and no thread of Python runs beside native code that keeps the
interpreter's lock. So a watchdog without a need for either, that of ``faulthandler``, ends the whole process; executors
see it die, find what it left, and go on with another one.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager

from qbench.execution.outcome import Failed
from qbench.stages.stage import Stage
from qbench.store import Store
from qbench.store.store import translated_errors

OUT_OF_TIME = "Timeout ("
"""What the watchdog's account of all threads begins with."""


@contextmanager
def limited(stage: Stage, store: Store, seconds: float | None) -> Iterator[None]:
    """End this process, as a crash would, if the context lasts longer than some seconds; None sets no limit."""
    if seconds is None:
        yield
        return
    path = store.traceback_path(stage.kind, stage.digest)
    with translated_errors(store.root):
        file = path.open("w", encoding="utf-8")
    with file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            path.unlink(missing_ok=True)


def out_of_time(stage: Stage, store: Store, seconds: float | None) -> Failed | None:
    """Return the failure of a stage whose process has died, if it was its limit that ended it."""
    if seconds is None:
        return None
    path = store.traceback_path(stage.kind, stage.digest)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if not text.startswith(OUT_OF_TIME):
        return None
    return Failed(
        f"not done within {seconds:g} s, the limit of --stage-limit, and ended: raise it if the stage needs longer",
        path,
    )
