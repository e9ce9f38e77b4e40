"""Files of artefacts that are not what was written: noticed, told, set aside, computed again."""

import shutil
from collections.abc import Callable
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from pkgutil import iter_modules
from random import Random
from typing import Any

import pytest

from qbench import stages
from qbench.stages.stage import Stage
from qbench.store import Store, verify

HERE = "a {damage} {file} of an artefact, of each kind of stage"


def flip(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, random: Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content))])


def remove(path: Path, random: Random) -> None:
    path.unlink()


DAMAGES: dict[str, Callable[[Path, Random], None]] = {
    "flipped bit in a": flip,
    "truncated": truncate,
    "missing": remove,
}
FILES = ("file", "manifest")


def damaged_file(artefact: Path, file: str, random: Random) -> Path:
    """Return the file of an artefact to be damaged; empty ones cannot be."""
    if file == "manifest":
        return artefact / "manifest.json"
    return random.choice([path for path in sorted(artefact.rglob("*")) if path.is_file() and path.stat().st_size
                          and path.name != "manifest.json"])  # fmt: skip


def assert_mended(laboratory: Any, folder: Path, kind: str, damage: str, file: str, number: int) -> None:
    """An artefact that is needed is told to be damaged and computed again, and everything is as before."""
    random = Random(f"{kind} {damage} {file} {number}")
    shutil.copytree(laboratory.alone, folder)
    stage = random.choice(laboratory.of_kind(kind))
    artefact = folder / "store/artefacts" / kind / stage.digest
    path = damaged_file(artefact, file, random)
    DAMAGES[damage](path, random)
    copy = folder / "copy"
    shutil.copytree(folder / "store", copy)
    found = verify(Store(copy))
    assert len(found.damaged) == 1, found
    assert str(copy / path.relative_to(folder / "store")) in found.damaged[0]
    for behind in laboratory.behind(stage):
        shutil.rmtree(folder / "store/artefacts" / behind.kind / behind.digest)
    ended = laboratory.run_here(folder)
    laboratory.assert_finished(ended, folder)
    assert [str(path) in line for line in ended.warnings] == [True], ended.err
    assert stage.title in " ".join(ended.computed)
    (aside,) = (folder / "store/damaged").iterdir()
    assert aside.name.startswith(f"{kind}-{stage.digest[:16]}")
    shutil.rmtree(folder)


def damage_all(laboratory: Any, workplace: Path, tally: Any, each: list[tuple[str, str, str]], times: int) -> None:
    for number in range(times):
        for kind, damage, file in each:
            with tally.of(HERE.format(damage=damage, file=file)):
                assert_mended(laboratory, workplace / f"{kind}-{damage}-{file}-{number}", kind, damage, file, number)


def stage_kinds() -> set[str]:
    """Return every kind of stage that qbench has."""
    modules = [import_module(f"{stages.__name__}.{each.name}") for each in iter_modules(stages.__path__)]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return {value.kind for value in classes if issubclass(value, Stage) and not isabstract(value)}


def test_one_damage_of_each_kind(laboratory: Callable[..., Any], every_kind: Path, workplace: Path, tally: Any) -> None:
    made = laboratory(every_kind)
    assert set(made.kinds) == stage_kinds() == {path.name for path in (made.alone / "store/artefacts").iterdir()}
    ways = [(damage, file) for file in FILES for damage in DAMAGES]
    each = [(kind, *ways[index % len(ways)]) for index, kind in enumerate(made.kinds)]
    damage_all(made, workplace, tally, each, 1)


@pytest.mark.slow
@pytest.mark.parametrize("times", [3])
def test_every_damage_of_every_kind(
    laboratory: Callable[..., Any], every_kind: Path, workplace: Path, tally: Any, times: int
) -> None:
    made = laboratory(every_kind)
    each = [(kind, damage, file) for kind in made.kinds for file in FILES for damage in DAMAGES]
    damage_all(made, workplace, tally, each, times)
