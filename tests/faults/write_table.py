"""Writes the table of docs/reliability.md from a run of the slow tests of this folder.

``python tests/faults/write_table.py docs/reliability.md`` runs every test here, slow ones too, and writes what came of
it between two markers. With files of counts that were made before (``QBENCH_FAULTS=counts.json pytest tests/faults -m
slow``) behind the document, it only writes: those of several runs are added up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- counted: begin -->", "<!-- counted: end -->"
HEADER = ("what was brought about", "how often", "came out as it must")


def table(counted: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines between the markers.

    Args:
        counted: the contents of files of counts, of runs on one machine.

    Raises:
        ValueError: there is nothing, or they are of several machines or versions.
    """
    if not counted or any(each["machine"] != counted[0]["machine"] for each in counted):
        raise ValueError("counts of one machine are added up, and there must be some")
    faults: dict[str, list[int]] = {}
    for each in counted:
        for row in each["faults"]:
            sums = faults.setdefault(row["fault"], [0, 0])
            sums[0] += row["injected"]
            sums[1] += row["held"]
    lines = [_machine(counted), "", _row(HEADER), _row(["---", "---:", "---:"])]
    for fault, (injected, held) in sorted(faults.items()):
        lines.append(_row([fault, str(injected), str(held) if held == injected else f"**{held}**"]))
    return "\n".join(lines)


def replaced(document: str, lines: str) -> str:
    """Return a document with other lines between its markers.

    Raises:
        ValueError: it does not have each marker once, in order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"there must be one {BEGIN} and behind it one {END}")
    return f"{before}{BEGIN}\n{lines}\n{END}{after}"


def counts() -> dict[str, Any]:
    """Run every test of this folder and return what it counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.json"
        environment = os.environ | {"QBENCH_FAULTS": str(path), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent)], env=environment, check=False)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main(document: Path, *counted: Path) -> None:
    """Write the table into a document."""
    text = document.read_text(encoding="utf-8")
    replaced(text, "")  # before the tests, which take long
    found = [json.loads(path.read_text(encoding="utf-8")) for path in counted] or [counts()]
    document.write_text(replaced(text, table(found)), encoding="utf-8")


def _machine(counted: Sequence[Mapping[str, Any]]) -> str:
    machine = counted[0]["machine"]
    versions = machine["versions"]
    dates = sorted({each["date"] for each in counted})
    return (
        f"Counted on {' and '.join(dates)}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instructions']}, {machine['system']}; Python {versions['python']}, torch {versions['torch']}."
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
