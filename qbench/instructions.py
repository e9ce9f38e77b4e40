"""Which vector instructions of a processor compute: they decide how fast integers are, and whether they saturate."""

from __future__ import annotations

import os
import platform
from pathlib import Path

INTEGER = {"VNNI": ("avx512_vnni", "avx_vnni"), "AMX": ("amx_int8",)}
"""Instructions for sums of products of 8-bit integers, and the flags that Linux has for them."""
X86 = ("x86_64", "amd64")
CPUINFO = Path("/proc/cpuinfo")
LIMIT = "ONEDNN_MAX_CPU_ISA"
"""The variable that keeps oneDNN from using what the processor has."""


def instructions(cpuinfo: Path = CPUINFO) -> str:
    """Return what torch computes with, such as "AVX2, no VNNI", and what is not known about it. It imports torch.

    Args:
        cpuinfo: where the system lists the processor's flags.
    """
    import torch

    words = [torch.backends.cpu.get_cpu_capability()]
    if platform.machine().lower() in X86:
        words.append(_integer_instructions(cpuinfo))
    if os.environ.get(LIMIT):
        words.append(f"{LIMIT}={os.environ[LIMIT]}")
    return ", ".join(words)


def _integer_instructions(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    if not flags:
        return "VNNI not known"
    return ", ".join(name for name, known in INTEGER.items() if not {*known}.isdisjoint(flags)) or "no VNNI"
