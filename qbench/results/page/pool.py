"""What many cells of a page have in common, held once and referred to by number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


class Pool:
    """Values in the order in which they were first given; equal ones share a place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """Return the place of a value that JSON can hold."""
        return self._place("as it is", value, value)

    def place_flat(self, value: Any) -> int:
        """Return the place of the leaves of a nested value; see ``flat``."""
        return self._place("flat", value, None)

    def _place(self, kind: str, value: Any, held: Any) -> int:
        key = f"{kind} {json.dumps(value)}"
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(flat(value) if kind == "flat" else held)
        return self._places[key]


def flat(value: Any) -> list[tuple[str, str]]:
    """Return every leaf of a nested description with the path to it, in its own order.

    Lists of plain values stay one line. Nothing here recurses: how deep a description goes is up to whoever wrote it.
    """
    found: list[tuple[str, str]] = []
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, each = waiting.pop()
        parts = _parts(each)
        if parts:
            waiting += [(f"{path}.{key}" if path else key, inner) for key, inner in reversed(parts)]
        else:
            found.append((path, _leaf(each)))
    return found


def _parts(value: Any) -> Sequence[tuple[str, Any]]:
    """Return what a value is made of; nothing for a leaf."""
    if isinstance(value, Mapping):
        return [(str(key), inner) for key, inner in value.items()]
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping | list | tuple) for each in value):
        return [(str(index), inner) for index, inner in enumerate(value)]
    return []


def _leaf(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping | list | tuple):
        return ", ".join(map(_leaf, value)) or "none"
    return str(value)
