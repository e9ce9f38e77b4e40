"""What a run shows while it works: bars on a terminal, plain lines in a log. Both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from qbench.estimate import Rates
from qbench.execution.listener import Listener
from qbench.stages.stage import Stage
from qbench.store import Store

if TYPE_CHECKING:
    from rich.progress import Progress

QUIET_SECONDS = 30.0
"""How long a log stays silent within one stage."""
REFRESH_SECONDS = 0.5
"""How often the estimate on a terminal is renewed within one stage."""
OWN_PACE_SHARE = 0.05
"""How much of a stage must be done before its own pace tells when it will end."""


@contextmanager
def progress(store: Store, processes: int = 1) -> Iterator[Listener]:
    """Give a listener that suits standard error, for a run on which a number of processes work."""
    if not sys.stderr.isatty():
        yield _Lines(store, processes)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Bars(store, processes, bars)


def duration(seconds: float) -> str:
    """Return a duration as a person says it: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 99:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Tracker(Listener):
    """Counts stages and estimates what is left."""

    def __init__(self, store: Store, processes: int) -> None:
        self._store = store
        self._processes = processes
        self.left: dict[str, Stage] = {}
        self.total = 0
        self._at_work: Stage | None = None
        self._begun = 0.0
        self._done = 0.0

    @cached_property
    def _rates(self) -> Rates:
        """Read when the first stage is to be computed: it takes a look at every artefact of the store."""
        return Rates.of_store(self._store)

    def planned(self, missing: dict[str, Stage], total: int) -> None:
        self.left = dict(missing)
        self.total = len(missing)
        expected = self.time_left() if missing else ""
        self.say(", ".join(filter(None, (f"{len(missing)} of {total} stages to compute", expected))))

    def joined(self, workers: int) -> None:
        self._processes = max(1, workers)

    def started(self, stage: Stage) -> None:
        self._at_work, self._begun, self._done = stage, time.perf_counter(), 0.0

    def advanced(self, stage: Stage, amount: float) -> None:
        self._done = min(self._done + amount, stage.work)

    def finished(self, stage: Stage, seconds: float) -> None:
        self._rates.observe(stage, seconds)
        self.left.pop(stage.digest, None)

    def appeared(self, stage: Stage) -> None:
        self.left.pop(stage.digest, None)

    def failed(self, stage: Stage, reason: str, details: Path | None) -> None:
        self.left.pop(stage.digest, None)
        where = f" (traceback in {details})" if details else ""
        self.say(f"failed: {stage.title}: {reason}{where}")

    def skipped(self, stage: Stage) -> None:
        self.left.pop(stage.digest, None)

    def noted(self, stage: Stage, sentence: str) -> None:
        self.say(f"{stage.kind}: {stage.title}: {sentence}")

    def damaged(self, stage: Stage, reason: str) -> None:
        self.left[stage.digest] = stage
        self.total = max(self.total, len(self.left))
        self.say(f"warning: {reason}; it was set aside and is computed again")

    def time_left(self) -> str:
        """Return what is left of the run, in words; empty as long as nothing is known of it."""
        at_work = self._at_work if self._at_work is not None and self._at_work.digest in self.left else None
        rest = [stage for stage in self.left.values() if stage is not at_work]
        own = 0.0 if at_work is None else self._seconds_left(at_work)
        cost = self._rates.estimate(rest)
        if not cost.seconds and not own:
            return ""
        is_all_known = own is not None and not cost.unknown_kinds
        seconds = (cost.seconds + (own or 0.0)) / self._processes
        return f"{'about' if is_all_known else 'more than'} {duration(seconds)} left"

    def _seconds_left(self, stage: Stage) -> float | None:
        """Return what is left of the stage at work, judged by itself once it has come some way."""
        spent = time.perf_counter() - self._begun
        if self._done >= OWN_PACE_SHARE * stage.work:
            return spent * (stage.work / self._done - 1)
        expected = self._rates.seconds(stage)
        return None if expected is None else max(expected - spent, 0.0)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        print(line, file=sys.stderr, flush=True)


class _Lines(_Tracker):
    """One line for each stage, and one every half minute within a long one."""

    _last = 0.0
    _waited = False

    def started(self, stage: Stage) -> None:
        super().started(stage)
        self._last = time.perf_counter()
        self._waited = False

    def advanced(self, stage: Stage, amount: float) -> None:
        super().advanced(stage, amount)
        if time.perf_counter() - self._last >= QUIET_SECONDS:
            self._last = time.perf_counter()
            own = self._seconds_left(stage)
            left = "" if own is None else f", about {duration(own)} left of it"
            self.say(f"{stage.kind}: {stage.title}: {self._done / stage.work:.0%}{left}")

    def finished(self, stage: Stage, seconds: float) -> None:
        super().finished(stage, seconds)
        parts = [f"{seconds:.1f} s", self.time_left() if self.left else ""]
        count = f"[{self.total - len(self.left)}/{self.total}]"
        self.say(f"{count} {stage.kind}: {stage.title}: {', '.join(filter(None, parts))}")

    def waiting(self, stage: Stage) -> None:
        if not self._waited:
            self._waited = True
            self.say(f"waiting for another process that computes {stage.kind}: {stage.title}")


class _Bars(_Tracker):
    """A bar for the run and one for the stage at work."""

    def __init__(self, store: Store, processes: int, bars: Progress) -> None:
        super().__init__(store, processes)
        self._bars = bars
        self._run_bar = bars.add_task("stages", total=None, left="")
        self._stage_bar = bars.add_task("", total=None, visible=False, left="")
        self._refreshed = 0.0

    def planned(self, missing: dict[str, Stage], total: int) -> None:
        super().planned(missing, total)
        self._refresh()

    def started(self, stage: Stage) -> None:
        super().started(stage)
        text = f"{stage.kind}: {stage.title}"
        self._bars.reset(self._stage_bar, description=text[:70], total=stage.work, visible=True)

    def advanced(self, stage: Stage, amount: float) -> None:
        super().advanced(stage, amount)
        self._bars.update(self._stage_bar, advance=amount)
        if time.perf_counter() - self._refreshed >= REFRESH_SECONDS:
            self._refresh()

    def finished(self, stage: Stage, seconds: float) -> None:
        super().finished(stage, seconds)
        self._refresh()

    def appeared(self, stage: Stage) -> None:
        super().appeared(stage)
        self._refresh()

    def failed(self, stage: Stage, reason: str, details: Path | None) -> None:
        super().failed(stage, reason, details)
        self._refresh()

    def waiting(self, stage: Stage) -> None:
        self._bars.update(self._stage_bar, description=f"waiting for another process: {stage.title}"[:70])

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False)

    def _refresh(self) -> None:
        self._refreshed = time.perf_counter()
        done = self.total - len(self.left)
        self._bars.update(self._run_bar, total=self.total, completed=done, left=self.time_left())
