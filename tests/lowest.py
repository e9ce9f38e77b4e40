"""Write the lowest releases that pyproject.toml permits, as constraints for pip; see the environment ``lowest`` of tox.

The bounds themselves are the only list. By hand: ``python tests/lowest.py constraints.txt``, then
``pip install --constraint constraints.txt --editable '.[test]'``. What only developers install stays free.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
TOOLS = ("test", "dev", "docs")
"""Extras that nobody needs who only measures."""


def requirements(pyproject: Path = PYPROJECT) -> Iterator[Requirement]:
    """Yield what a user may install beside qbench, each once: the dependencies, and the extras that are not tools."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras if extra not in TOOLS for line in extras[extra])]
    for requirement in map(Requirement, dict.fromkeys(lines)):
        if requirement.name != project["name"]:  # an extra made of others names the project itself
            yield requirement


def lower_bound(requirement: Requirement) -> Version:
    """Return the release that the bound with ``>=`` names.

    Raises:
        ValueError: there is no such bound, or there are several.
    """
    bounds = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(
            f"{requirement} has {len(bounds)} lower bounds; give it one: {requirement.name}>=VERSION in pyproject.toml"
        )
    return bounds[0]


def constraints(pyproject: Path = PYPROJECT) -> str:
    """Return one line ``name==version`` for each requirement, with its marker if it has one."""
    lines = []
    for requirement in requirements(pyproject):
        marker = f"; {requirement.marker}" if requirement.marker else ""
        lines.append(f"{requirement.name}=={lower_bound(requirement)}{marker}\n")
    return "".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(constraints(*map(Path, sys.argv[2:])), encoding="utf-8")
