"""The README tells the truth: its commands run, its table is the committed one, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qbench.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
QBENCH_COMMANDS = [line for line in COMMANDS if line.startswith("qbench ")]
TEST_COMMAND = "pip install tox && tox"


def test_every_qbench_command_runs_on_the_small_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QBENCH_STORE", str(tmp_path / "store"))
    assert len(QBENCH_COMMANDS) >= 8
    for line in QBENCH_COMMANDS:
        arguments = shlex.split(line.replace("quickstart", "smoke").replace("samples=250", "samples=40"))[1:]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"


def test_first_command_installs_and_runs_the_committed_quickstart() -> None:
    assert COMMANDS[0] == "pip install . && qbench run suites/quickstart.yaml"
    assert (ROOT / "suites" / "quickstart.yaml").is_file()


@pytest.mark.parametrize("path", [".ci/run", "README.md"])
def test_one_command_passes_the_tests(path: str) -> None:
    assert TEST_COMMAND in (ROOT / path).read_text(encoding="utf-8").splitlines()


def test_table_is_the_committed_one() -> None:
    shown = _table_lines(README.partition("<!-- quickstart table -->")[2].partition("<!-- end -->")[0])
    committed = (ROOT / "results" / "quickstart" / "table.md").read_text(encoding="utf-8")
    assert shown == _table_lines(committed)
    assert len(shown) == 10


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if not target.startswith("http")]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def _table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]
