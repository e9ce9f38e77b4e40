"""The bounds of pyproject.toml: wide enough for others, and honest (see the environment ``lowest`` of tox)."""

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

LOWEST = Path(__file__).parent / "lowest.py"
lowest = SimpleNamespace(**runpy.run_path(str(LOWEST)))

REASONS: dict[str, str] = {}
"""Why a dependency must not be newer than its bound; there is none today."""


def test_what_a_user_installs_is_read() -> None:
    project = tomllib.loads(lowest.PYPROJECT.read_text(encoding="utf-8"))["project"]
    names = [requirement.name for requirement in lowest.requirements()]
    assert len(names) == len(set(names))
    assert {"torch", "ray", "lmdb"} <= set(names)
    assert not {"pytest", "mypy", "mkdocs-material", "qbench"} & set(names)
    assert len(names) >= len(project["dependencies"])


@pytest.mark.parametrize("requirement", list(lowest.requirements()), ids=lambda requirement: requirement.name)
def test_a_bound_is_a_lower_one_and_leaves_the_newest_free(requirement: Requirement) -> None:
    """Whoever has another release for reasons of their own can have qbench beside it."""
    operators = [part.operator for part in requirement.specifier]
    if requirement.name not in REASONS:
        assert operators == [">="], f"{requirement}: an upper bound needs a reason in REASONS"
    assert lowest.lower_bound(requirement) > Version("0")


@pytest.mark.parametrize("text", ["torch", "torch<3", "torch==2.8", "torch~=2.8", "torch>2.8"])
def test_a_requirement_without_a_lower_bound_has_no_lowest_release(text: str) -> None:
    with pytest.raises(ValueError, match="give it one: torch>=VERSION"):
        lowest.lower_bound(Requirement(text))


def test_the_constraints_are_the_bounds_themselves(tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        '[project]\nname = "q"\ndependencies = ["a>=1.2", "b>=3; sys_platform == \'linux\'", "c[x]>=4,!=4.1"]\n'
        '[project.optional-dependencies]\nuser = ["d>=5"]\nuser-too = ["d>=5"]\ndev = ["e>=6"]\n'
        'test = ["f", "q[user]"]\n'
        'all = ["q[user,user-too]"]\n'
    )
    (tmp_path / "constraints.txt").write_text("old")
    subprocess.run([sys.executable, LOWEST, tmp_path / "constraints.txt", pyproject], check=True)
    assert (tmp_path / "constraints.txt").read_text() == ('a==1.2\nb==3; sys_platform == "linux"\nc==4\nd==5\n')
