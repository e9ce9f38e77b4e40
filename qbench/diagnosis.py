"""A look at the machine: what works here and what does not."""

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qbench.environment import processor, versions
from qbench.errors import QbenchError
from qbench.plugins import CATALOGUES, Catalogue
from qbench.store import Store

LOW_SPACE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        found: what was found, in words.
        ok: whether runs can rely on it.
    """

    what: str
    found: str
    ok: bool


def examine(store: Path) -> list[Finding]:
    """Look at versions, processor, accelerators, the store and every plugin; plugins are imported."""
    return [
        *_versions(),
        _ray(),
        *_hardware(),
        *_store(store),
        *(each for group in CATALOGUES for each in _plugins(group)),
    ]


def _versions() -> list[Finding]:
    return [Finding(name, version, version != "not installed") for name, version in versions().items()]


def _ray() -> Finding:
    try:
        return Finding("ray", version("ray"), True)
    except PackageNotFoundError:
        return Finding("ray", "not installed; --executor ray needs it: pip install 'qbench[ray]'", True)


def _hardware() -> list[Finding]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {memory:.0f} GB of memory"
    names = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [
        Finding("processor", cores, True),
        Finding("accelerators", ", ".join(names) or "none; everything runs on the processor", True),
    ]


def _store(path: Path) -> list[Finding]:
    try:
        Store(path)
    except QbenchError as error:
        return [Finding("store", str(error), False)]
    free = shutil.disk_usage(path).free
    return [Finding("store", f"{path}, {free / 1e9:.1f} GB free", free > LOW_SPACE_BYTES)]


def _plugins(catalogue: Catalogue) -> list[Finding]:
    findings = []
    for name in catalogue.names():
        try:
            catalogue.load(name)
            entry = catalogue.entry(name)
            findings.append(Finding(f"{catalogue.kind} {name}", f"{entry.package} {entry.version}", True))
        except QbenchError as error:
            findings.append(Finding(f"{catalogue.kind} {name}", str(error), False))
    return findings
