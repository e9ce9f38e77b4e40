"""Writes the table of docs/performance.md from what pytest-benchmark has measured: ``tox -e bench`` runs it.

``python tests/benchmarks/write_table.py benchmarks.json docs/performance.md`` replaces what is between two markers; the
same measurements give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADER = ("what is compared", "measured", "limit", "verdict")
ACCELERATOR = {
    "test_sampling_cifar10_with_a_frozen_w4a8_model": (
        "sampling ddim-cifar10's architecture with a frozen W4A8 model over full precision, on an accelerator"
    ),
    "test_reconstructing_a_block_of_cifar10": (
        "1,000 iterations of reconstruction of a block of ddim-cifar10's architecture over the block's own forward and "
        "backward, on an accelerator"
    ),
    "test_extracting_inception_features": "Inception features of images from the host, on an accelerator",
}
"""What needs an accelerator, by the test that measures it: where there is none, the table says so."""


def table(measured: Mapping[str, Any]) -> str:
    """Return the lines between the markers.

    Args:
        measured: the content of the file that ``--benchmark-json`` names.
    """
    lines = [machine(measured), "", _row(HEADER), _row(["---", "---:", "---:", "---"])]
    lines += [_row(each) for each in rows(measured)]
    return "\n".join(lines)


def machine(measured: Mapping[str, Any]) -> str:
    """Return in one sentence what was measured on, with which versions and when."""
    info = measured["machine_info"]
    ours = info["qbench"]
    versions = ours["versions"]
    accelerator = f", {ours['accelerator']}" if ours.get("accelerator") else ", no accelerator"
    return (
        f"Measured on {measured['datetime'][:10]}: {ours['processor']}, {ours['cores']} cores, {ours['instructions']}, "
        f"{ours['threads']} {'thread' if ours['threads'] == 1 else 'threads'}{accelerator}; "
        f"Python {versions['python']}, torch {versions['torch']}, diffusers {versions['diffusers']}."
    )


def rows(measured: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each benchmark, in the order of files and tests, then one for what was not measured."""
    names = set()
    for benchmark in sorted(measured["benchmarks"], key=lambda each: str(each["fullname"])):
        found = benchmark["extra_info"]
        if "ratio" not in found:
            continue
        name = benchmark["name"].partition("[")[0]
        names.add(name)
        unit = found.get("unit", "")
        figure = f" ({found['figure']})" if found.get("figure") else ""
        compared = found.get("compared") or benchmark["name"].removeprefix("test_").replace("_", " ")
        yield compared, _number(found["ratio"], unit) + figure, *_verdict(found)
    for name, compared in ACCELERATOR.items():
        if name not in names:
            yield compared, "-", "-", "not measured"


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


def main(measured: Path, document: Path) -> None:
    """Write the table of a file of measurements into a document."""
    lines = table(json.loads(measured.read_text(encoding="utf-8")))
    document.write_text(replaced(document.read_text(encoding="utf-8"), lines), encoding="utf-8")


def _verdict(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return the limit and whether it holds; a benchmark without a limit only reports."""
    if "limit" not in found:
        return "-", "report"
    bound, limit = found.get("bound", "at most"), found["limit"]
    holds = found["ratio"] <= limit if bound == "at most" else found["ratio"] >= limit
    return f"{bound} {_number(limit, found.get('unit', ''))}", "holds" if holds else "**missed**"


def _number(value: float, unit: str) -> str:
    shown = f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
    return f"{shown} {unit}" if unit else f"{shown}x"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
