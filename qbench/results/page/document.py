"""The page: every result in one file that needs no network, no server and no build step."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from qbench.records import write_text

STYLES = ("tokens", "layout", "tables", "plots", "images", "cell", "print")
SCRIPTS = (
    "dom",
    "data",
    "route",
    "controls",
    "tooltip",
    "labels",
    "scales",
    "axes",
    "forest",
    "overview",
    "rows",
    "filters",
    "table",
    "pareto",
    "points",
    "tradeoff",
    "curves",
    "strips",
    "images",
    "cell_figures",
    "command",
    "cell",
    "published",
    "notes",
    "main",
)
"""The files of ``assets/`` in the order in which they are put together."""


def write_page(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page that shows some data.

    Args:
        path: the file, ``index.html`` beside the folders of the suites.
        data: see ``page_data``.

    Raises:
        ResultsError: the page cannot be written.
    """
    write_text(path, page(data))


def page(data: Mapping[str, Any]) -> str:
    """Return the page that shows some data; see ``page_data``."""
    style = "\n".join(_part(f"{name}.css") for name in STYLES)
    script = "\n".join(['"use strict";', "(() => {", *(_part(f"{name}.js") for name in SCRIPTS), "})();"])
    values = {
        "policy": f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "data": _embedded(data),
        "script": script,
    }
    # In one pass: what is filled in may itself look like a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], _part("template.html"))


def _part(name: str) -> str:
    return (files("qbench.results.page") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}"


def _embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that HTML does not read as more than text, and that any file can hold."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # In JSON these stand in strings only. Half of a surrogate pair is no character.
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return re.sub(r"[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
