"""What a result was made with: versions, hardware, memory."""

import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("qbench", "torch", "diffusers", "numpy", "safetensors")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that decide numerics, importing none of them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment(device: str) -> dict[str, Any]:
    """Return what an artefact's manifest says of how it was made; torch must be imported.

    Args:
        device: the device that was computed on, as torch writes it.
    """
    import torch

    return {
        "versions": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # which decide the last digit, and so what is learned
        "cores": os.cpu_count(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "threads": torch.get_num_threads(),
    }


@cache
def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process so far, decimal MB.

    Linux is asked for that of the program that runs now: ``getrusage`` also counts what the process that started this
    one had resident when it did.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def git_state(path: Path) -> dict[str, Any] | None:
    """Return commit and cleanness of the checkout that tracks a file; None if none does or git is missing.

    Names of remotes and branches are not read: they may tell what is nobody's business.
    """
    folder = path.resolve().parent
    tracked = _git(folder, "ls-files", "--", path.name)
    commit = _git(folder, "rev-parse", "HEAD")
    if not tracked or not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--", path.name)
    return {"commit": commit, "suite_is_committed": changed == ""}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
