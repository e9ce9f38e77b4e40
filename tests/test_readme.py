"""The README tells the truth: its commands run, its table is the committed one, its links lead somewhere."""

import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from qbench.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
INSTALLING = ("tutorial.md",)
"""Pages whose commands install a package: tests/docs/test_tutorial.py runs these."""
LONG_SUITES = re.compile(r"(suites/)?\b(quickstart|methods|ablation)(?=\.yaml)(\.yaml)|quickstart")
TEST_COMMAND = "pip install tox && tox"


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [dedent(block) for _, block in found]


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [command for line in lines for command in line.split(" && ")]


def test_every_qbench_command_runs_on_the_small_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process: what several make of a suite is for tests/execution/test_companions.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QBENCH_STORE", str(tmp_path / "store"))
    for folder in ("my-images", "real-images"):
        (tmp_path / folder).mkdir()
        for index in range(60):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    pages = [page for page in PAGES if page.name not in INSTALLING]
    shown = dict.fromkeys(line for page in pages for line in commands(page) if line.startswith("qbench "))
    assert len(shown) >= 20
    for line in shown:
        if "--only method=" in line:  # of a suite that is too long, and whose methods the small one has not
            installed = re.sub(r"suites/(\w+)\.yaml", r"\1", line)
            result = CliRunner().invoke(app, [*shlex.split(installed)[1:], "--dry-run"])
            assert result.exit_code == 0, f"{line}: {result.output}"
            continue
        small = LONG_SUITES.sub("smoke", line).replace("samples=250", "samples=40").replace(" --processes 2", "")
        small = small.replace("suites/paper.yaml --standin", "smoke")
        small = re.sub(r"suites/(paper\w*)\.yaml", r"\1", small)  # of which nothing but --dry-run is left
        small = small.replace("my-suite.yaml", "smoke")  # it runs in tests/workloads/test_inline.py
        small = small.replace("fid,is,kid", "fd-fashion,is-fashion")  # whose weights ship
        arguments = shlex.split(small)[1:]
        result = CliRunner().invoke(app, arguments)
        differs = line.startswith("qbench diff ")  # of other samples, as the lines before have it
        assert result.exit_code == (1 if differs else 0), f"{line}: {result.output}"
    for page in pages:
        names: dict[str, object] = {"__name__": "page"}
        for block in blocks(page, "python"):
            exec(block, names)  # on what the commands wrote


def test_first_command_installs_and_runs_the_committed_quickstart() -> None:
    assert blocks(ROOT / "README.md", "console")[0] == "pip install . && qbench run suites/quickstart.yaml\n"
    assert (ROOT / "suites" / "quickstart.yaml").is_file()


@pytest.mark.parametrize("path", [".ci/run", "README.md"])
def test_one_command_passes_the_tests(path: str) -> None:
    assert TEST_COMMAND in (ROOT / path).read_text(encoding="utf-8").splitlines()


def test_table_is_the_committed_one() -> None:
    shown = _table_lines(README.partition("<!-- quickstart table -->")[2].partition("<!-- end -->")[0])
    committed = (ROOT / "results" / "quickstart" / "table.md").read_text(encoding="utf-8")
    assert shown == _table_lines(committed)
    assert len(shown) == 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if not target.startswith("http")]
    assert targets
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("name", ["tiny-ddim.md", "fast-preset.md"])
def test_summaries_in_docs_are_those_of_the_committed_tables(name: str) -> None:
    """``python docs/studies/summarize.py`` leaves them as they are."""
    specification = spec_from_file_location("summarize", ROOT / "docs" / "studies" / "summarize.py")
    assert specification is not None
    assert specification.loader is not None
    summarize = module_from_spec(specification)
    specification.loader.exec_module(summarize)
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert "<!-- end -->" in text
    assert summarize.rewritten(text) == text


def _table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]
