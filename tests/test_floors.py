"""The floors of the house: who may know whom. Imports inside functions and for type checking count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import qbench
import qbench_methods

ROOMS = {
    0: ("errors", "identity", "bits", "secrets"),
    1: ("settings", "plugin", "plugins", "devices", "environment", "instructions", "quant", "diffusion", "store"),
    2: ("method", "calibration", "workload", "workloads", "metrics", "zoo"),
    3: (
        "cell", "suite", "suite_assets", "suite_schema", "suite_expansion", "standin", "yaml_file", "plan", "estimate",
        "stages", "memory", "records", "score_request", "scoring",
    ),
    4: ("results", "execution", "export", "diagnosis"),
    5: ("cli", "testing", "__main__"),
}  # fmt: skip
FLOOR = {room: floor for floor, rooms in ROOMS.items() for room in rooms}
OPEN_TO_METHODS = {
    "qbench.errors",
    "qbench.method",
    "qbench.quant",
    "qbench.bits",
    "qbench.settings",
    "qbench.calibration",
    "qbench.diffusion.step_correction",  # what ``Method.correct`` returns
}


def _modules(package: Path, name: str) -> dict[str, Path]:
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


QBENCH = _modules(Path(qbench.__file__).parent, "qbench")
METHODS = _modules(Path(qbench_methods.__file__).parent, "qbench_methods")
EVERYTHING = QBENCH | METHODS


def imports(source: str, importer: str, is_package: bool, known: set[str]) -> Iterator[tuple[int, str]]:
    """Yield line and name of every module of this project that a source imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = importer.split(".")
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # ``from qbench import quant`` imports the module quant, ``from qbench.bits import BitWidth`` only bits.
            names = [each if (each := f"{origin}.{alias.name}") in known else origin for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.partition(".")[0] in ("qbench", "qbench_methods"))


def edges(modules: dict[str, Path]) -> list[tuple[str, str, str]]:
    """Return importer, imported and place of every import among this project's modules."""
    return [
        (name, target, f"{path.name}:{line}: {name} imports {target}")
        for name, path in modules.items()
        for line, target in imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py", set(EVERYTHING))
    ]


def floor(module: str) -> int:
    """Return the floor of a module; the package itself is the ground that everybody stands on.

    It is a door as well: what it offers is imported when somebody asks for it.
    """
    room = module.split(".")[1:2]
    return FLOOR[room[0]] if room else 0


def test_the_imports_are_found() -> None:
    source = """
import os
import qbench.store.store as s
from qbench import quant, __version__
from qbench.bits import BitWidth
from .grid import AffineGrid
from .. import errors
if TYPE_CHECKING:
    import qbench_methods.linear
def f():
    from qbench.cli.main import main
"""
    known = {"qbench.quant", "qbench.bits", "qbench.quant.grid", "qbench.errors"}
    assert [name for _, name in sorted(imports(source, "qbench.quant.layers", False, known))] == [
        "qbench.store.store",
        "qbench",
        "qbench.quant",
        "qbench.bits",
        "qbench.quant.grid",
        "qbench.errors",
        "qbench_methods.linear",
        "qbench.cli.main",
    ]
    package = list(imports("from .grid import AffineGrid", "qbench.quant", True, known))
    assert package == [(1, "qbench.quant.grid")]
    assert len(edges(EVERYTHING)) > 100


def test_every_room_has_a_floor() -> None:
    rooms = {module.split(".")[1] for module in QBENCH if "." in module}
    assert rooms - FLOOR.keys() == set()


def test_lower_never_imports_higher() -> None:
    upwards = [
        place
        for importer, imported, place in edges(QBENCH)
        if imported.startswith("qbench.") and floor(imported) > floor(importer) and importer != "qbench"
    ]
    assert upwards == []


def test_nothing_in_qbench_imports_a_method() -> None:
    assert [place for _, imported, place in edges(QBENCH) if imported.startswith("qbench_methods")] == []


def test_the_zoo_is_known_by_its_entry_points_only() -> None:
    outside = [
        place
        for importer, imported, place in edges(EVERYTHING)
        if imported.startswith("qbench.zoo") and not importer.startswith("qbench.zoo")
    ]
    assert outside == []


@pytest.mark.parametrize("module", sorted(METHODS))
def test_methods_import_only_what_is_open_to_them(module: str) -> None:
    closed = [
        place
        for _, imported, place in edges({module: METHODS[module]})
        if imported.startswith("qbench.") and not OPEN_TO_METHODS & {imported, ".".join(imported.split(".")[:2])}
    ]
    assert closed == []
