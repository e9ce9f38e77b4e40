"""One stage, tried once: claimed in the store, computed, published. Every executor does it this way."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from qbench.environment import environment, peak_memory_mb
from qbench.errors import DamagedArtefact, QbenchError, StoreError
from qbench.execution.limit import limited
from qbench.execution.outcome import Appeared, Busy, Computed, Damaged, Failed, Outcome
from qbench.identity import file_digest
from qbench.secrets import without_secrets
from qbench.stages.computing import compute
from qbench.stages.kept import KEPT
from qbench.stages.stage import Runtime, Stage, Work
from qbench.store import Artefact, Manifest, Store
from qbench.store.store import is_about_space, store_error


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
        runtime: device and batch size; beyond its limit of a stage's time, this process is ended.
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
                with limited(stage, store, runtime.stage_limit):
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
        return Failed(without_secrets(str(error)))
    except (Exception, SystemExit) as error:  # whatever a plugin raises must not stop the other cells
        path = store.keep_traceback(stage.kind, stage.digest, without_secrets(traceback.format_exc()))
        return Failed(without_secrets(f"{type(error).__name__}: {error}"), path)
    return Computed(seconds)


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder and the folders in it, by its path within."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
