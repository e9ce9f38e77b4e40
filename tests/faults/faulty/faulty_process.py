"""The command line in a process of its own, group of its own, in which something goes wrong at a chosen place.

Python tells an audit hook of every file that it is about to open, make, rename or remove. What libraries written in
other languages do is not among it: for these the tests fill a file system that is really small.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATHS = {"open": 1, "os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1}
"""Events of the file system, each with the number of its arguments that are paths."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        folder: only steps on files in it count.
        trace: a file to which the name of every step is added.
        kill_at: number of the step, from 0, before which the process is killed.
        refuse: number of an error of the system with which every step that would write is refused.
        begin: what the path of a step has in it from which on steps are refused, or the disk is filled.
        within: what the path of a step has in it that is refused.
        ballast: a file that is made as large as its file system allows, once ``begin`` is met.
    """

    folder: str
    trace: str | None = None
    kill_at: int | None = None
    refuse: int | None = None
    begin: str = ""
    within: str = ""
    ballast: str | None = None


def run(
    arguments: Sequence[str], folder: str, environment: Mapping[str, str], log: str, fault: Fault | None = None
) -> None:
    """Run ``qbench`` in a folder; standard error goes to a file, standard output beside it."""
    os.setpgid(0, 0)
    import torch

    torch.set_num_threads(1)
    for descriptor, path in ((1, f"{log}.out"), (2, log)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["qbench", *arguments]
    from qbench.cli.main import main

    if fault is not None:
        sys.addaudithook(hook(fault))
    main()


def hook(fault: Fault) -> Callable[[str, tuple[Any, ...]], None]:
    """Return the audit hook that brings a fault about."""
    count = 0
    has_begun = not fault.begin
    is_busy = False

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, has_begun, is_busy
        if event not in PATHS or is_busy:
            return
        paths = [os.fspath(each) for each in arguments[: PATHS[event]] if isinstance(each, str | Path)]
        if not paths or not all(os.path.abspath(each).startswith(fault.folder + os.sep) for each in paths):
            return
        writes = event != "open" or _writes(*arguments[1:3])
        # To put a file on the disk it is opened by its descriptor, without a mode.
        if not writes and arguments[1] is not None:
            return
        is_busy = True
        try:
            if fault.trace is not None:
                with open(fault.trace, "a", encoding="utf-8") as file:
                    file.write(f"{_name(event, paths, fault.folder)}\n")
            if count == fault.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            if not has_begun and fault.begin in paths[0]:
                has_begun = True
                if fault.ballast is not None:
                    _fill(fault.ballast)
        finally:
            is_busy = False
        refusable = writes and event not in ("os.remove", "os.rmdir")
        if fault.refuse is not None and has_begun and refusable and fault.within in paths[-1]:
            raise OSError(fault.refuse, os.strerror(fault.refuse), paths[-1])

    return hear


def _writes(mode: str | None, flags: int | None) -> bool:
    return bool((flags or 0) & WRITES) or any(sign in (mode or "") for sign in "wax+")


def _name(event: str, paths: Sequence[str], folder: str) -> str:
    """Return the name of a step, the same in every run."""
    shown = (os.path.relpath(os.path.abspath(each), folder) for each in paths)
    plain = (re.sub(r"\.\d+$", ".<pid>", re.sub(r"[0-9a-f]{16,}", "<digest>", each)) for each in shown)
    return f"{event.removeprefix('os.')} {' -> '.join(plain)}"


def _fill(path: str) -> None:
    """Write a file until its file system has not a single block left."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (65536, 4096, 512, 1):
            while True:
                try:
                    os.write(file, bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
    finally:
        os.close(file)
