"""What differs between two nested values, such as descriptions and settings, by path."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 120


class Absent:
    """Stands for a value that is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


@dataclass(frozen=True)
class Change:
    """A value that differs.

    Attributes:
        path: where it is: keys joined by points, places in lists in brackets from 0; empty for the whole.
        first: the value on the one side, or ``ABSENT``.
        second: the value on the other.
    """

    path: str
    first: Any
    second: Any

    def as_json(self) -> dict[str, Any]:
        """Return it for programs; a side that is absent has no key."""
        sides = {"first": self.first, "second": self.second}
        return {"path": self.path} | {name: value for name, value in sides.items() if not isinstance(value, Absent)}


def changes(first: Any, second: Any, path: str = "") -> list[Change]:
    """Return every value that differs, as deep as both sides are of one shape, in the order of the first side.

    Args:
        first: nested mappings, lists and plain values, as JSON has them.
        second: the other side.
        path: where both are.
    """
    return list(_changes(first, second, path))


def value_text(value: Any) -> str:
    """Return a value in one line, as JSON, shortened where it is long; ``absent`` where there is none."""
    if isinstance(value, Absent):
        return repr(value)
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _changes(first: Any, second: Any, path: str) -> Iterator[Change]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in [*first, *(key for key in second if key not in first)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from _changes(first.get(key, ABSENT), second.get(key, ABSENT), inner)
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from _changes(one, other, f"{path}[{index}]")
    elif type(first) is not type(second) or first != second:
        yield Change(path, first, second)
