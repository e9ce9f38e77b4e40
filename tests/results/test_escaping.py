"""Hostile words in records and published figures stay words: on the page, in Markdown, LaTeX and CSV."""

import csv
import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.leaderboard import regenerate

HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "a | b\n# c\n\n<b>d</b>",
    "\\input{/etc/passwd} $x$ 50 % #1 _a_ ^b^ ~",
    "=HYPERLINK(\"http://x\")",
    "@SUM(1)",
    "\u2028{{script}}<!--",
)  # fmt: skip


def hostile(make_record: Callable[..., Record], words: str, is_full_precision: bool) -> Record:
    """Return a record in which every free text is hostile; a quantized cell has failed for a hostile reason."""
    made = make_record("full-precision", "W32A32", 0) if is_full_precision else make_record(figures={})
    raw = made.model_dump(mode="json")
    if not is_full_precision:
        raw |= {"status": "failed", "reason": words, "failures": {"distance": words}}
    raw["suite"] |= {"title": words, "file": words, "overrides": {words: words}}
    raw["environment"] = {words: words, "device": words}
    for info in raw["metrics"].values():
        info |= {"title": words, "protocol": words, "caveat": words, "paper": words}
    return Record.model_validate(raw)


@pytest.fixture(params=HOSTILE)
def folder(
    request: pytest.FixtureRequest, make_record: Callable[..., Record], write_records: Callable[..., Path]
) -> Path:
    """Results in which every free text is hostile."""
    words = request.param
    found = write_records(*(hostile(make_record, words, full) for full in (True, False)))
    regenerate(found.parent)
    return found


def test_the_page_has_its_own_two_scripts_and_nothing_else(folder: Path):
    text = (folder.parent / "index.html").read_text()
    assert len(re.findall(r"<script", text)) == len(re.findall(r"</script", text)) == 2
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(data)["suites"]
    assert "<" not in data
    assert "{{" not in text.replace(data, "")


def test_markdown_has_no_elements_links_or_headlines_of_theirs(folder: Path):
    for path in (folder / "table.md", folder.parent / "README.md"):
        text = path.read_text()
        assert not re.search(r"<(?!br>)[a-z/!]", text), text
        assert not re.search(r"\]\(javascript:", text)
        assert not re.search(r"^# c", text, re.MULTILINE)


def test_latex_reads_nothing(folder: Path):
    text = (folder / "table.tex").read_text()
    assert r"\input{" not in text
    assert not re.search(r"(?<!\\)#1|50 %", text)


def test_csv_can_be_read_and_holds_no_formula(folder: Path):
    rows: list[dict[str, Any]] = list(csv.DictReader(StringIO((folder / "table.csv").read_text())))
    assert [row["label"] for row in rows] == ["full-precision", "round"]
    for row in rows:
        assert None not in row
        assert not any(value.startswith(("=", "@")) for value in row.values())


def test_no_address_but_those_of_the_web_becomes_a_link():
    """Of published figures only; the schema refuses others too."""
    import qbench.results.page

    route = (Path(qbench.results.page.__file__).parent / "assets" / "route.js").read_text()
    assert r"/^https?:\/\//i.test(url) ? el(" in route
    from pydantic import ValidationError

    from qbench.results.published_schema import PublishedFile

    with pytest.raises(ValidationError, match="url"):
        PublishedFile.model_validate(
            {"paper": "x", "url": "javascript:alert(1)", "tables": [{"table": "t", "workload": "w"}]}
        )
