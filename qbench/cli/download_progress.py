"""What ``qbench fetch`` shows while it works: a bar on a terminal, plain lines in a log. Both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qbench.workloads.assets import Asset
from qbench.workloads.disk_space import size_text
from qbench.workloads.download import Report

QUIET_SECONDS = 30.0
"""How long a log stays silent within one download."""

Begin = Callable[[Asset], Report]
"""Is told which asset begins; returns what is told of its bytes."""


@contextmanager
def download_progress() -> Iterator[Begin]:
    """Give what suits standard error."""
    if not sys.stderr.isatty():
        yield _lines
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def begin(asset: Asset) -> Report:
            task = bars.add_task(escape(asset.name[:50]), total=asset.size)

            def report(done: int, total: int | None) -> None:
                bars.update(task, completed=done, total=total or asset.size)

            return report

        yield begin


def _lines(asset: Asset) -> Report:
    last = time.monotonic()
    print(f"fetching {asset.name} ({size_text(asset.size)}) from {asset.source.origin}", file=sys.stderr, flush=True)

    def report(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            of_all = "" if total is None else f" of {size_text(total)}"
            print(f"  {size_text(done)}{of_all}", file=sys.stderr, flush=True)

    return report
