"""One stage, tried once: claimed in the store, computed, published. Every executor does it this way.

What came of it is plain data, so that it can be told by another process.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qbench.environment import environment, peak_memory_mb
from qbench.errors import DamagedArtefact, QbenchError, StoreError
from qbench.identity import file_digest
from qbench.stages.computing import compute
from qbench.stages.kept import KEPT
from qbench.stages.stage import Runtime, Stage, Work
from qbench.store import Artefact, Manifest, Store
from qbench.store.store import is_about_space, store_error


@dataclass(frozen=True)
class Computed:
    """The stage is in the store now.

    Attributes:
        seconds: time that it took.
        notes: sentences for the user that were not told while it was computed.
    """

    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Appeared:
    """Another process has computed the stage meanwhile."""


@dataclass(frozen=True)
class Busy:
    """Another process computes the stage now."""


@dataclass(frozen=True)
class Damaged:
    """An input was not what had been written, was set aside, and has to be computed again first.

    Attributes:
        digest: the input's.
        reason: what is wrong with it.
    """

    digest: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """The stage has no result.

    Attributes:
        reason: why, for the user.
        details: where its traceback is, if it is a defect.
    """

    reason: str
    details: Path | None = None


Outcome = Computed | Appeared | Busy | Damaged | Failed


def attempt(
    stage: Stage,
    store: Store,
    runtime: Runtime,
    started: Callable[[], None] = lambda: None,
    report: Callable[[float], None] = lambda amount: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> Outcome:
    """Compute a stage, unless it is there already or another process computes it now.

    Args:
        stage: with inputs that are in the store, or were.
        store: where artefacts are.
        runtime: device and batch size.
        started: called when it is really computed.
        report: called with amounts of work done, in units of ``stage.work``.
        note: called with sentences that the user should read while work goes on.

    Raises:
        StoreError: the store gave out; what was finished is kept.
    """
    with store.claim(stage.digest) as mine:
        if not mine:
            return Busy()
        if store.has(stage.kind, stage.digest):
            return Appeared()
        inputs: dict[str, Artefact] = {}
        for name, each in stage.inputs().items():
            try:
                inputs[name] = store.get(each.kind, each.digest)
            except DamagedArtefact as error:
                store.set_aside(each.kind, each.digest)
                return Damaged(each.digest, str(error))
        return _compute(stage, inputs, store, runtime, started, report, note)


def _compute(
    stage: Stage,
    inputs: dict[str, Artefact],
    store: Store,
    runtime: Runtime,
    started: Callable[[], None],
    report: Callable[[float], None],
    note: Callable[[str], None],
) -> Outcome:
    device = str(runtime.torch_device())  # imports torch, which is no part of the stage's time
    started()
    begun = time.perf_counter()
    try:
        with store.pending(stage.digest) as folder:
            work = Work(inputs, folder, runtime, report, note, KEPT)
            try:
                compute(stage, work)
            except Exception as error:
                # Libraries report a full disk in their own words, or in none.
                if is_about_space(error) or store.is_full():
                    raise store_error(None, store.root) from error
                raise
            seconds = time.perf_counter() - begun
            manifest = Manifest(
                kind=stage.kind,
                digest=stage.digest,
                group=stage.group,
                description=stage.description,
                files=_digests(folder),
                seconds=round(seconds, 3),
                work=stage.work,
                peak_memory_mb=round(peak_memory_mb(), 1),
                environment=environment(device) | work.made_with,
            )
            store.publish(folder, manifest)
    except StoreError:
        raise
    except QbenchError as error:
        return Failed(str(error))
    except (Exception, SystemExit) as error:  # whatever a plugin raises must not stop the other cells
        path = store.keep_traceback(stage.kind, stage.digest, traceback.format_exc())
        return Failed(f"{type(error).__name__}: {error}", path)
    return Computed(seconds)


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder and the folders in it, by its path within."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
