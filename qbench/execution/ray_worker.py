"""What runs in a Ray worker: a look at whether the node fits, and one stage.

Ray starts the process and uses it again for the next stage, so what is kept in this module stays between stages.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qbench.environment import versions
from qbench.errors import StoreError
from qbench.execution.attempt import attempt
from qbench.execution.outcome import Computed, Outcome
from qbench.stages.stage import Runtime, Stage
from qbench.store import Store

TOKEN = "token"
"""The file by which a node is recognised to see the store, in the run's own folder there."""
PATIENCE_SECONDS = 60.0
"""How long a file that another node has written may stay unseen: network file systems remember what was not there."""
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Terms:
    """What all nodes of a run have in common.

    Attributes:
        store: root of the store.
        meeting: the run's own folder in the store.
        token: what the file in it says.
        driver: name of the machine that asks.
        versions: of Python and of what decides numerics.
        plugins: version by package of everything that offers a plugin of the run.
        modules: to be importable.
        folder: where the run was started; relative paths are relative to it.
        threads: of each worker.
    """

    store: Path
    meeting: Path
    token: str
    driver: str
    versions: dict[str, str]
    plugins: dict[str, str]
    modules: tuple[str, ...]
    folder: Path
    threads: int


_opened: dict[Path, Store] = {}
"""The store of this process, which remembers what it has checked."""


def objection(terms: Terms, answer: str) -> str | None:
    """Return why this machine cannot work on a run, None if it can.

    Args:
        terms: what it must have.
        answer: name of the file to write in return.
    """
    try:
        if (terms.meeting / TOKEN).read_text(encoding="utf-8") != terms.token:
            raise FileNotFoundError
        (terms.meeting / answer).write_text(terms.token, encoding="utf-8")
    except FileNotFoundError:
        return (
            f"it does not see the store {terms.store} of {terms.driver}: "
            "name a folder on a file system that all nodes share with --store"
        )
    except OSError as error:
        return f"it cannot use the store {terms.store} ({error.strerror}): every node must be able to read and write it"
    for name, wanted in terms.versions.items():
        if versions()[name] != wanted:
            return _other_version(name, versions()[name], wanted, terms.driver)
    for name, wanted in terms.plugins.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            return _other_version(name, found, wanted, terms.driver)
    for module in terms.modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return f"it cannot import {module} ({reason}): install on every node what {terms.driver} has"
    return None


def compute(terms: Terms, handed: Sequence[Any], runtime: Runtime) -> Outcome:
    """Try a stage.

    Args:
        terms: what all nodes of the run have in common.
        handed: Ray's reference to the stage, which Ray itself carries between the processes of one cluster; within a
            sequence it is not followed before this node is known to have what the stage is made of.
        runtime: device and batch size; the device ``cuda`` becomes the one that Ray gives to this stage.

    Raises:
        StoreError: the store gave out, or this node does not see it.
    """
    import ray

    _set_threads(terms.threads)
    store = _store(terms)
    (reference,) = handed
    stage: Stage = ray.get(reference)
    wait_until_seen(store, stage.inputs().values())
    if runtime.device == "cuda":
        runtime = replace(runtime, device=f"cuda:{_device_index()}")
    notes: list[str] = []
    outcome = attempt(stage, store, runtime, note=notes.append)
    return replace(outcome, notes=tuple(notes)) if isinstance(outcome, Computed) else outcome


def wait_until_seen(store: Store, stages: Iterable[Stage], patience: float = PATIENCE_SECONDS) -> None:
    """Wait for artefacts that another machine has written; go on without them when patience is at an end."""
    end = time.monotonic() + patience
    for stage in stages:
        while not store.has(stage.kind, stage.digest) and time.monotonic() < end:
            look_again(store.folder(stage.kind, stage.digest))
            time.sleep(POLL_SECONDS)


def look_again(path: Path) -> None:
    """Make a network file system ask its server what is there: opening a folder does, asking for a file does not."""
    for folder in (path.parent.parent, path.parent, path):
        if folder.is_dir():
            os.listdir(folder)


def device_index(given: str, visible: str | None) -> int:
    """Return torch's number of an accelerator.

    Args:
        given: Ray's name of it.
        visible: ``CUDA_VISIBLE_DEVICES`` of the process; torch counts what is in it.
    """
    return visible.split(",").index(given) if visible else int(given)


def _device_index() -> int:
    import ray

    # A process keeps the accelerator that it has opened, while Ray may hand it another one with the next stage: so all
    # are visible to it, and the right one is named.
    (given,) = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return device_index(str(given), os.environ.get("CUDA_VISIBLE_DEVICES"))


def _set_threads(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _store(terms: Terms) -> Store:
    """Return the store, which is never made anew here: that would be another one of the same name."""
    if terms.meeting not in _opened:
        problem = objection(terms, f"worker-{os.getpid()}")
        if problem is not None:
            raise StoreError(f"a node that joined the cluster cannot work on this run: {problem}")
        if terms.folder.is_dir():
            os.chdir(terms.folder)
        _opened.clear()
        _opened[terms.meeting] = Store(terms.store)
    return _opened[terms.meeting]


def _other_version(name: str, found: str, wanted: str, driver: str) -> str:
    return f"{name} is {found} there and {wanted} on {driver}: install the same versions on every node"
