"""The table of docs/reliability.md: the same counts, the same bytes; what did not hold stands out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("write_table.py")
DOCUMENT = "# Title\n\n<!-- counted: begin -->\nthe table of before\n<!-- counted: end -->\n\nafter\n"
VERSIONS = {"python": "3.11.7", "torch": "2.14.1", "qbench": "0.1.0"}
MACHINE = {
    "processor": "A | B", "cores": 2, "instructions": "AVX2", "system": "Linux x86_64", "versions": VERSIONS
}  # fmt: skip


def written(folder: Path, *counts: dict[str, tuple[int, int]], document: str = DOCUMENT, **machine: Any) -> Any:
    """Run the script on counts; return its exit code and the document. ``machine`` changes that of the last counts."""
    path, files = folder / "document.md", []
    path.write_text(document)
    for number, each in enumerate(counts):
        rows = [{"fault": name, "injected": injected, "held": held} for name, (injected, held) in each.items()]
        changes = machine if number == len(counts) - 1 else {}
        content = {"date": "2026-11-29", "machine": MACHINE | changes, "faults": rows}
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(content))
    done = subprocess.run([sys.executable, SCRIPT, path, *files], capture_output=True)
    return done.returncode, path.read_text()


def test_faults_are_added_up_and_what_did_not_hold_stands_out(tmp_path: Path) -> None:
    code, found = written(tmp_path, {"b": (2, 2), "a": (3, 1)}, {"b": (1, 1)})
    assert code == 0
    assert found == (
        "# Title\n\n<!-- counted: begin -->\n"
        "Counted on 2026-11-29: A | B, 2 cores, AVX2, Linux x86_64; Python 3.11.7, torch 2.14.1.\n\n"
        "| what was brought about | how often | came out as it must |\n| --- | ---: | ---: |\n"
        "| a | 3 | **1** |\n| b | 3 | 3 |\n"
        "<!-- counted: end -->\n\nafter\n"
    )


def test_counts_of_two_machines_are_not_added_up(tmp_path: Path) -> None:
    code, found = written(tmp_path, {"b": (2, 2)}, {"b": (1, 1)}, cores=64)
    assert (code, found) == (1, DOCUMENT)


@pytest.mark.parametrize("document", ["no markers", "<!-- counted: end --> <!-- counted: begin -->", DOCUMENT * 2])
def test_a_document_without_its_markers_is_left_alone(tmp_path: Path, document: str) -> None:
    assert written(tmp_path, {"b": (2, 2)}, document=document) == (1, document)


def test_the_document_has_its_markers() -> None:
    document = (SCRIPT.parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert document.count("<!-- counted: begin -->") == document.count("<!-- counted: end -->") == 1
