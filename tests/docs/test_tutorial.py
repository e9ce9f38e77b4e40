"""The tutorial, followed by the letter: from an empty folder to a row on the leaderboard."""

import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pages import DOCS, Block, blocks_of
from typer.testing import CliRunner

from qbench.cli.main import app

Install = Callable[[str, str, dict[str, str]], None]
STEPS = list(blocks_of(DOCS / "tutorial.md"))


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Install) -> Callable[[Block], None]:
    """Return a function that does what a block says; only fewer samples, steps and iterations are taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QBENCH_STORE", str(tmp_path / "store"))

    def run(line: str) -> None:
        words = shlex.split(line)
        if words[:3] == ["pip", "install", "-e"]:  # as it would: the package stays where it is
            name, _, extra = words[3].rstrip("]").partition("[")
            project = tomllib.loads((tmp_path / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            assert extra in project["optional-dependencies"]
            groups = project["entry-points"].items()
            lines = [
                text for group, offers in groups for text in (f"[{group}]", *(f"{k} = {v}" for k, v in offers.items()))
            ]
            monkeypatch.syspath_prepend(tmp_path / name)
            install(project["name"], "\n".join(lines), {})
            return
        smaller = ["--set", "samples=8", "--set", "steps=2"] if words[1:3] == ["run", "smoke"] else []
        result = CliRunner().invoke(app, [*words[1:], *smaller])
        assert (words[0], result.exit_code) == ("qbench", 0), f"{line}: {result.output} {result.exception}"

    def follow_one(block: Block) -> None:
        if block.language == "console":
            for line in block.text.splitlines():
                run(line)
        elif block.language == "python":
            module = tmp_path / "my-method" / "my_method.py"
            assert module.is_file()
            small = block.text.replace("] = 100", "] = 1")
            assert small != block.text
            module.write_text(small.replace("per_step=16", "per_step=2"), encoding="utf-8")
            sys.modules.pop("my_method", None)
        elif block.language == "yaml":
            small = block.text.replace("samples: 200", "samples: 8").replace("iterations: 250", "iterations: 2")
            small = small.replace("steps: 20", "steps: 2")
            (tmp_path / "my-suite.yaml").write_text(small, encoding="utf-8")
        elif block.language == "toml":
            assert block.text.strip() in (tmp_path / "my-method" / "pyproject.toml").read_text(encoding="utf-8")

    return follow_one


def test_the_tutorial_ends_with_a_row_of_ones_own_on_the_leaderboard(
    tmp_path: Path, follow: Callable[[Block], None]
) -> None:
    for block in STEPS:
        follow(block)
    sys.modules.pop("my_method", None)
    table = pd.read_csv(tmp_path / "results" / "my-suite" / "table.csv")
    rows = table[table.method == "my-method"]
    assert len(rows) > 1
    assert set(rows.status) == {"complete"}
    assert "my-method" in (tmp_path / "results" / "my-suite" / "table.md").read_text(encoding="utf-8")
    for name in ("README.md", "index.html"):
        assert "my-suite" in (tmp_path / "results" / name).read_text(encoding="utf-8")
