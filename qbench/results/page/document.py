"""The page: every result in one file that needs no network, no server and no build step."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.records import write_text
from qbench.results.page.data import page_data
from qbench.results.reading import SuiteResults

if TYPE_CHECKING:
    from qbench.results.best import Contest
    from qbench.results.verdicts import Verdict

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


def write_page(
    path: Path,
    suites: Sequence[SuiteResults],
    verdicts: Mapping[str, Sequence[Verdict]],
    contests: Mapping[str, Sequence[Contest]],
    problems: Sequence[str],
) -> None:
    """Write the page of some suites.

    Args:
        path: the file, ``index.html`` beside the folders of the suites.
        suites: the records of each folder; images are read from the strips that lie there.
        verdicts: what is said of published figures, by the name of the suite's folder.
        contests: who is best, by the name of the suite's folder.
        problems: what was found wrong on the way, in sentences; the page shows them.

    Raises:
        ResultsError: the page cannot be written, or a column of a suite would hold two protocols.
    """
    write_text(path, page(page_data(suites, verdicts, contests, problems)))


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
