"""What pages show is right: suites can be read, snippets parse, commands and options exist.

Blocks of ``console`` and ``python`` are run by tests/test_readme.py and tests/docs/test_tutorial.py.
"""

import re
import shlex
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pages import BLOCKS, PAGES, Block

from qbench.cli.main import app
from qbench.errors import SuiteError
from qbench.results.published_schema import PublishedFile
from qbench.suite import load_suite
from qbench.suite_schema import SuiteSchema

LANGUAGES = {"console", "python", "yaml", "toml", "bash", "text"}
NOT_RUN = {
    "cluster.md": 1,
    "design.md": 1,
    "own-method.md": 2,
    "own-metric.md": 1,
    "own-workload.md": 3,
    "performance.md": 1,
    "tutorial.md": 2,
}
"""How many blocks of each page are not run; why stands in a comment before each."""
MISSING = {"metrics.md", "tutorial.md"}
"""Pages whose suites name images or a method that a reader has, and this test has not: only their keys are checked."""
COMMANDS: Any = typer.main.get_command(app)
ANY_SUITE = {
    "name": "any",
    "workloads": ["tiny-ddim"],
    "methods": ["linear"],
    "bits": ["W4A8"],
    "metrics": ["mse-to-fp"],
}


def of(language: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language == language]


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    fences = sum(len(re.findall(r"^ *```\w*$", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(BLOCKS)


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    plain = [block for block in BLOCKS if block.language == "text"]
    assert [str(block) for block in plain if not block.reason] == []
    assert Counter(block.page for block in plain) == NOT_RUN
    assert [str(block) for block in BLOCKS if block.reason and block.language != "text"] == []


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_is_what_it_is_taken_for(block: Block, tmp_path: Path) -> None:
    data = yaml.safe_load(block.text)
    if isinstance(data, list):  # steps of a CI
        assert all(set(step) == {"run"} for step in data)
    elif "tables" in data:
        PublishedFile.model_validate(data)
    else:
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump({**ANY_SUITE, **data}), encoding="utf-8")
        SuiteSchema.model_validate({**ANY_SUITE, **data})
        if block.page in MISSING:
            with pytest.raises(SuiteError, match=r"their-images|unknown method 'my-method'"):
                load_suite(path)
        else:
            assert load_suite(path).cells


@pytest.mark.parametrize("block", of("toml"))
def test_toml_parses(block: Block) -> None:
    assert tomllib.loads(block.text)


@pytest.mark.parametrize("block", of("bash"))
def test_shell_scripts_have_no_errors_of_syntax(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_that_is_named_anywhere_exists() -> None:
    named = list(_named_commands())
    assert len(named) > 100
    assert [f"{place}: {wrong}" for place, line in named if (wrong := _wrong(line))] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("qbench run SUITE --standin", ""),
        ("qbench", ""),
        ("qbench methods show linear --json", ""),
        ("qbench runn SUITE", "no command 'runn'"),
        ("qbench store list", "no command 'list'"),
        ("qbench run SUITE --stand-in", "no option '--stand-in'"),
    ],
)
def test_wrong_commands_are_found(line: str, wrong: str) -> None:
    assert _wrong(line) == wrong


def _named_commands() -> Iterator[tuple[str, str]]:
    """Yield place and text of every call of qbench in blocks and in the running text."""
    for block in BLOCKS:
        if block.language in ("console", "bash", "text", "yaml"):
            for line in block.text.replace("\\\n", " ").splitlines():
                for found in re.finditer(r"(?:^|[ &;])(qbench [a-z].*?)(?= &&|;|\)|  #|$)", line):
                    yield str(block), found[1]
    for page in PAGES:
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for found in re.finditer(r"`(?:[A-Z_]+=\w+ )?(qbench [^`]*)`", text):
            yield page.name, found[1].replace("\n", " ")


def _wrong(line: str) -> str:
    """Return what does not exist of a call of qbench; nothing if all of it does."""
    command = COMMANDS
    words = shlex.split(line)[1:]
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        word = words.pop(0)
        if word.isupper() or "|" in word:
            return ""  # a placeholder
        if word not in command.commands:
            return f"no command {word!r}"
        command = command.commands[word]
    known = {name for each in command.params for name in each.opts} | {"--help"}
    wrong = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {wrong[0]!r}" if wrong else ""
