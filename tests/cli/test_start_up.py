"""Nothing heavy is imported before it is needed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
BARE_SECONDS = 0.04
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


@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.35), (["methods", "list"], 0.6)])
def test_help_and_lists_answer_at_once(words: list[str], limit: float):
    """The least of several is what the machine can do; whatever else it is doing makes the others longer.

    On a slower or busier machine than those that the limits are for, it may take as much longer as a bare Python does.
    """
    bare, answer = [], []
    for _ in range(7):
        bare.append(seconds("-c", "pass"))
        answer.append(seconds("-m", "qbench", *words))
    assert min(answer) - min(bare) < limit * max(1.0, min(bare) / BARE_SECONDS)


def test_a_finished_suite_takes_little_more_than_its_imports(workplace: Path, finished_suite: Path):
    """Seconds depend on the machine; what a run of three finished cells must import anyway tells how fast it is."""
    imports = "import PIL.Image, PIL.ImageDraw, filelock, numpy, pydantic, rich.console, rich.table, typer, yaml"
    reference, answer = [], []
    for _ in range(7):
        reference.append(seconds("-c", imports))
        answer.append(seconds("-m", "qbench", "run", "micro.yaml"))
    assert min(answer) < 3.5 * min(reference)


def test_each_manifest_and_record_is_parsed_once(
    qbench: Callable[..., Any], finished_suite: Path, monkeypatch: pytest.MonkeyPatch
):
    parsed: list[str] = []
    monkeypatch.setattr("json.loads", lambda text, loads=json.loads: parsed.append(str(text)) or loads(text))
    assert qbench("run", finished_suite).code == 0
    large = [text for text in parsed if '"description"' in text]
    assert large
    assert len(large) == len(set(large))


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
