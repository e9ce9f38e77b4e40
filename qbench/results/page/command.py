"""The command that makes a cell again."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from qbench.cell import KEYS
from qbench.records import Record


def command(record: Record) -> str | None:
    """Return the command line that runs one cell, quoted for a shell; None if its suite's file is not known.

    Full precision runs with it, as a suite always does.
    """
    suite = record.suite
    if not suite.file:
        return None
    words = ["qbench", "run", f"./{suite.file}" if suite.file.startswith("-") else suite.file]
    words += ["--standin"] if suite.standin else []
    for key, value in suite.overrides.items():
        words += ["--set", f"{key}={_yaml(value)}"]
    for key, value in zip(KEYS, record.key, strict=True):
        words += ["--only", f"{key}={value}"]
    return shlex.join(words)


def _yaml(value: Any) -> str:
    """Return a value on one line, so that `--set` reads it back as it was."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False)
    return text.removesuffix("...\n").strip()
