"""The table of docs/performance.md: the same measurements, the same bytes; what failed or is missing is in it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("write_table.py")
DOCUMENT = "# Title\n\nbefore\n\n<!-- measured: begin -->\nthe table of before\n<!-- measured: end -->\n\nafter\n"
VERSIONS = {"python": "3.11.7", "torch": "2.14.1", "diffusers": "0.40.0", "qbench": "0.1.0"}
MACHINE = {"processor": "A | B", "cores": 2, "instructions": "AVX2", "threads": 1, "versions": VERSIONS}


def benchmark(name: str, **found: Any) -> dict[str, Any]:
    return {"name": name, "fullname": f"tests/benchmarks/{name}", "extra_info": found, "stats": {"mean": 0.1}}


def written(folder: Path, *benchmarks: dict[str, Any], document: str = DOCUMENT, **machine: Any) -> tuple[int, str]:
    """Run the script; return its exit code and the document."""
    measured, path = folder / "measured.json", folder / "document.md"
    content = {
        "datetime": "2026-11-29T01:02:03+00:00",
        "machine_info": {"qbench": {**MACHINE, **machine}},
        "benchmarks": benchmarks,
    }
    measured.write_text(json.dumps(content))
    path.write_text(document)
    done = subprocess.run([sys.executable, SCRIPT, measured, path], capture_output=True)
    return done.returncode, path.read_text()


def test_each_benchmark_has_a_row_with_its_verdict(tmp_path: Path) -> None:
    code, found = written(
        tmp_path,
        benchmark("test_b", ratio=2.5, limit=2.0, compared="b over c"),
        benchmark("test_a_thing[x]", ratio=0.0123, limit=0.6),
        benchmark("test_c", ratio=1.8, limit=1.7, bound="at least", compared="two over one", figure="12 images/s"),
        benchmark("test_d", ratio=0.3, limit=0.35, unit="s", compared="a command"),
        benchmark("test_e", ratio=0.75, compared="a report", figure="after 80 s"),
        benchmark("test_without_a_ratio"),
    )
    assert code == 0
    assert found.startswith(
        "# Title\n\nbefore\n\n<!-- measured: begin -->\nMeasured on 2026-11-29: A | B, 2 cores, AVX2"
    )
    assert "2 cores, AVX2, 1 thread, no accelerator; Python 3.11.7, torch 2.14.1, diffusers 0.40.0." in found
    assert found.endswith("<!-- measured: end -->\n\nafter\n")
    assert [line for line in found.splitlines() if line.startswith("| ")][2:7] == [
        "| a thing[x] | 0.012x | at most 0.60x | holds |",
        "| b over c | 2.50x | at most 2.00x | **missed** |",
        "| two over one | 1.80x (12 images/s) | at least 1.70x | holds |",
        "| a command | 0.30 s | at most 0.35 s | holds |",
        "| a report | 0.75x (after 80 s) | - | report |",
    ]
    assert "the table of before" not in found
    assert "without a ratio" not in found


def test_the_same_measurements_give_the_same_bytes(tmp_path: Path) -> None:
    measured = [benchmark("test_b", ratio=1, limit=2), benchmark("test_a", ratio=1, limit=2)]
    _, first = written(tmp_path, *measured)
    _, second = written(tmp_path, *reversed(measured), document=first)
    assert second == first


def test_what_needs_an_accelerator_is_said_to_be_not_measured(tmp_path: Path) -> None:
    _, found = written(tmp_path)
    assert found.count("| - | - | not measured |") == 3
    _, found = written(
        tmp_path, benchmark("test_extracting_inception_features", ratio=1.1, limit=1.5), accelerator="H200"
    )
    assert found.count("| - | - | not measured |") == 2
    assert ", H200; Python" in found


@pytest.mark.parametrize("document", ["no markers", "<!-- measured: end --> <!-- measured: begin -->", DOCUMENT * 2])
def test_a_document_without_its_markers_is_left_alone(tmp_path: Path, document: str) -> None:
    code, found = written(tmp_path, document=document)
    assert code != 0
    assert found == document


def test_the_document_has_its_markers_and_names_every_accelerator_benchmark() -> None:
    root = SCRIPT.parents[2]
    document = (root / "docs" / "performance.md").read_text(encoding="utf-8")
    assert document.count("<!-- measured: begin -->") == document.count("<!-- measured: end -->") == 1
    tests = (SCRIPT.parent / "test_accelerator.py").read_text(encoding="utf-8")
    listed = SCRIPT.read_text(encoding="utf-8")
    names = [line.removeprefix("def ").partition("(")[0] for line in tests.splitlines() if line.startswith("def test_")]
    assert names
    assert all(f'"{name}"' in listed for name in names)
