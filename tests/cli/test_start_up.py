"""Nothing heavy is imported before it is needed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "diffusers", "matplotlib", "numpy", "pandas", "scipy", "PIL", "safetensors")
IMPORTS = """
import contextlib, io, json, sys
from qbench.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["qbench", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    print(json.dumps([code, err.getvalue(), sorted(sys.modules)]))
"""
LIGHT = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["methods", "list"],
    ["workloads", "list"],
    ["metrics", "list"],
    ["suites", "list"],
    ["store", "ls"],
    ["export", "--help"],
]


def heavy_imports(commands: Sequence[Sequence[str]], folder: Path) -> list[tuple[int, str, set[str]]]:
    """Run commands one after the other in one fresh process; return exit code, log and heavy modules after each."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, json.dumps(commands)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(commands)
    return [(code, err, {each for each in HEAVY if each in modules}) for code, err, modules in answers]


def seconds(*arguments: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


def test_help_answers_at_once():
    """The least of several is what the machine can do; whatever else it is doing makes the others longer."""
    bare, answer = [], []
    for _ in range(7):
        bare.append(seconds("-c", "pass"))
        answer.append(seconds("-m", "qbench", "--help"))
    assert min(answer) - min(bare) < 0.35


def test_help_and_lists_import_nothing_heavy(workplace: Path):
    for words, (code, err, heavy) in zip(LIGHT, heavy_imports(LIGHT, workplace), strict=True):
        assert (code, err, heavy) == (0, "", set()), words


def test_reading_a_suite_needs_no_torch(workplace: Path, finished_suite: Path):
    for code, err, heavy in heavy_imports([["suites", "show", "smoke"], ["plan", "micro.yaml"]], workplace):
        assert (code, err) == (0, "")
        assert not heavy & {"torch", "torchvision", "diffusers", "matplotlib", "pandas"}


def test_a_run_of_what_is_there_needs_no_torch(workplace: Path, finished_suite: Path):
    commands = [["check", "micro.yaml"], ["run", "micro.yaml"], ["leaderboard"]]
    for code, err, heavy in heavy_imports(commands, workplace):
        assert code == 0, err
        assert not heavy & {"torch", "torchvision", "diffusers"}


def test_a_cell_that_cannot_be_exported_needs_no_torch(workplace: Path, finished_suite: Path):
    commands = [
        ["export", f"micro/micro.{cell}", "--to", "to", "--store", "none"] for cell in ("round.W4A8.s0", "rund")
    ]
    for code, err, heavy in heavy_imports(commands, workplace):
        assert code == 1
        assert err.startswith("qbench: micro/micro.r")
        assert not heavy & {"torch", "torchvision", "diffusers"}


@pytest.mark.parametrize("module", ["qbench", "qbench.errors", "qbench.method", "qbench.workload", "qbench.suite"])
def test_importing_a_contract_says_and_changes_nothing(module: str):
    code = (
        "import logging, sys, warnings\n"
        "before = (list(logging.root.handlers), logging.root.level, list(warnings.filters))\n"
        f"import {module}\n"
        "assert before == (list(logging.root.handlers), logging.root.level, list(warnings.filters))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
