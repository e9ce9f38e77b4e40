"""Reading YAML from people: safe, bounded, and with line numbers for messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qbench.errors import SuiteError
from qbench.settings import Location

MAX_BYTES = 250_000
MAX_DEPTH = 32
MAX_NODES = 20_000


_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises for scalars whose tag does not fit them, besides its own errors."""
_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast where PyYAML was built with libyaml, as its wheels are."""


@dataclass(frozen=True)
class YamlFile:
    """A parsed file.

    Attributes:
        path: where it was read from.
        data: plain Python data.
        overrides: top-level keys whose values were given on the command line instead.
        added: top-level lists that the command line adds to, and how many entries of the file's own they have.
    """

    path: Path
    data: Any
    _root: yaml.Node | None
    overrides: frozenset[str] = frozenset()
    added: Mapping[str, int] = field(default_factory=dict)

    def place(self, location: Location) -> str:
        """Return words for a location inside the data: file, line and key, or the option that gave it."""
        words = "".join(f" entry {step + 1}" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
        if location and location[0] in self.overrides:
            return f"--set {words}"
        if (
            len(location) > 1
            and isinstance(location[1], int)
            and location[1] >= self.added.get(str(location[0]), 10**9)
        ):
            return f"--set {location[0]}+{words.removeprefix(f'{location[0]} entry {location[1] + 1}')}"
        node = self._root
        for step in location:
            child = _child(node, step)
            if child is None:
                break
            node = child
        line = f":{node.start_mark.line + 1}" if node is not None else ""
        return f"{self.path}{line}" + (f" ({words})" if words else "")


def read_yaml(path: Path) -> YamlFile:
    """Read one YAML document.

    Raises:
        SuiteError: the file is missing, too large, not text, not YAML, says a key twice, or grows out of bounds
            through depth or aliases.
    """
    text = _read_text(path)
    try:
        root, data = _parsed(path, text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SuiteError(f"{path}{line}: not valid YAML ({error.problem})") from None
    except _YAML_ERRORS as error:
        raise SuiteError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    return YamlFile(path, data, root)


def parse_value(text: str) -> Any:
    """Return a value written in YAML on the command line (``500``, ``[0, 1]``, ``linear``).

    Raises:
        SuiteError: it is not valid YAML.
    """
    try:
        return _parsed(Path("command line"), text)[1]
    except _YAML_ERRORS:
        raise SuiteError(f"{text!r} is not a value in YAML") from None


def _parsed(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """Return nodes and data. What is wrong is told by the slower parser, whose words are the same everywhere."""
    try:
        _check_bounds(path, text, _FAST)
        return _construct(text, _FAST)
    except _YAML_ERRORS:
        _check_bounds(path, text, yaml.SafeLoader)
        return _construct(text, yaml.SafeLoader)


def _construct(text: str, loader_class: Any) -> tuple[yaml.Node | None, Any]:
    loader = loader_class(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _refuse_repeated_keys(root, set())
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_repeated_keys(node: yaml.Node, seen: set[int]) -> None:
    """PyYAML lets the last of equal keys win; here that is an error. Aliased nodes are looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, seen)
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            _refuse_repeated_keys(value, seen)
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                keys.add((key.tag, key.value))


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None
    if len(raw) > MAX_BYTES:
        raise SuiteError(f"{path}: larger than {MAX_BYTES:,} bytes, so it is no suite")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise SuiteError(f"{path}: not a text file in UTF-8") from None


def _check_bounds(path: Path, text: str, loader_class: Any) -> None:
    """Refuse depth and growth before anything is built: aliases count with all that they stand for."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=loader_class):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
            if len(open_nodes) > MAX_DEPTH:
                raise SuiteError(f"{path}:{line}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes and any(anchor == event.anchor for anchor, _ in open_nodes):
                raise SuiteError(f"{path}:{line}: the alias *{event.anchor} contains itself")
            total += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
        if total > MAX_NODES:
            raise SuiteError(f"{path}:{line}: more than {MAX_NODES:,} values, aliases counted with what they stand for")


def _child(node: yaml.Node | None, step: int | str) -> Any:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return value
    return None
