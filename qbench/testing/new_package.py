"""A ready plugin package from a template: the template's own files, with its names replaced."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from qbench.errors import PluginError
from qbench.plugins import Catalogue

MOST_CHARACTERS = 32
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Package:
    """What was written.

    Attributes:
        folder: where.
        files: paths within it.
    """

    folder: Path
    files: tuple[Path, ...]


def write_package(catalogue: Catalogue, name: str, folder: Path) -> Package:
    """Write a plugin package that can be installed as it is.

    Args:
        catalogue: says what kind of plugin.
        name: its public id, and the distribution's name.
        folder: a new or an empty one.

    Raises:
        PluginError: the name cannot be used, or the folder cannot; nothing is written then.
    """
    kind = catalogue.kind
    template = Path(str(files("qbench"))) / "testing" / "templates" / kind
    inside = [path.relative_to(template) for path in sorted(template.rglob("*")) if path.is_file()]
    ours = [path for path in inside if not any(part.startswith((".", "__")) for part in path.parts)]  # no tool's caches
    texts = {path: (template / path).read_text(encoding="utf-8") for path in ours}
    own = f"My{kind.capitalize()}"
    _check_name(catalogue, name, "\n".join(texts.values()).replace(own, ""))
    names = {f"my-{kind}": name, f"my_{kind}": _module(name), own: _class(name)}
    renamed = {_replaced(str(path), names): _replaced(text, names) for path, text in texts.items()}
    _write(folder, renamed)
    return Package(folder, tuple(map(Path, renamed)))


def _module(name: str) -> str:
    return name.replace("-", "_")


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _replaced(text: str, names: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, names)), lambda match: names[match[0]], text)


def _check_name(catalogue: Catalogue, name: str, used: str) -> None:
    shown = repr(name if len(name) <= 80 else f"{name[:77]}...")
    if not NAME.fullmatch(name) or len(name) > MOST_CHARACTERS:
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MOST_CHARACTERS].rstrip("-")
        hint = f"such as {better!r}" if NAME.fullmatch(better) else f"such as 'my-{catalogue.kind}'"
        raise PluginError(
            f"{shown} is no name for a package: take at most {MOST_CHARACTERS} small letters, digits and single "
            f"dashes, a letter first, {hint}"
        )
    for entry in catalogue.entries():
        if entry.name == name:
            raise PluginError(
                f"the {catalogue.kind} {name!r} is there already, from {entry.package}: take another name"
            )
    module = _module(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or _is_taken(name, module):
        raise PluginError(f"{name!r} is the name of something that Python or an installed package has: take another")
    if any(re.search(rf"\b{word}\b", used) for word in (_class(name), f"{_class(name)}Settings")):
        raise PluginError(f"{name!r} would hide {_class(name)}, which a {catalogue.kind} needs: take a longer name")


def _is_taken(name: str, module: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return find_spec(module) is not None
    return True


def _write(folder: Path, texts: dict[str, str]) -> None:
    """Write all files or none: aside first, then renamed into place."""
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise PluginError(f"{folder} is not empty: name a new folder with --to")
            parent = folder  # it may be the one that the command is run in, so it stays
        elif folder.exists() or folder.is_symlink():
            raise PluginError(f"{folder} is a file: name a new folder with --to")
        else:
            parent = folder.parent
            parent.mkdir(parents=True, exist_ok=True)
        aside = parent / f".new-package-{os.getpid()}"
        try:
            for name, text in texts.items():
                path = aside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            if parent is folder:
                for each in sorted(aside.iterdir()):
                    each.rename(folder / each.name)
                aside.rmdir()
            else:
                aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PluginError(
            f"{str(folder)[:200]!r} cannot be written ({reason}): name another folder with --to"
        ) from None
