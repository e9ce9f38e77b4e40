"""The page is one file, says the same for the same records, and holds text as text."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.page.data import page_data
from qbench.results.page.document import SCRIPTS, STYLES, page, write_page
from qbench.results.reading import SuiteResults

MakeRecord = Callable[..., Record]
HOSTILE = "</script><script>alert(1)</script><!-- {{script}} {{data}} \u2028 ]]> \\u003c & ' \" $"


def written(path: Path, *records: Record, problems: tuple[str, ...] = ()) -> str:
    write_page(path, page_data([SuiteResults(path.parent / "micro", records, (), ())], {}, {}, problems))
    return path.read_text(encoding="utf-8")


def data_of(text: str) -> Any:
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def test_the_same_records_give_the_same_bytes_and_an_unchanged_page_is_left_alone(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    records = [make_record("full-precision", "W32A32", 0), make_record()]
    first = written(tmp_path / "index.html", *records)
    made = (tmp_path / "index.html").stat().st_mtime_ns
    assert written(tmp_path / "index.html", *records) == first
    assert (tmp_path / "index.html").stat().st_mtime_ns == made
    (tmp_path / "moved").mkdir()
    assert written(tmp_path / "moved" / "index.html", *records) == first
    assert str(tmp_path) not in first


def test_names_cannot_leave_the_data(tmp_path: Path, make_record: MakeRecord) -> None:
    record = make_record(HOSTILE.replace("/", ""), suite={"name": "micro", "title": HOSTILE, "position": 0})
    text = written(tmp_path / "index.html", record, problems=(HOSTILE,))
    assert len(re.findall(r"<script", text)) == 2
    assert len(re.findall(r"</script", text)) == 2
    assert "alert(1)</script>" not in text
    assert "\u2028" not in text
    data = data_of(text)
    assert data["suites"][0]["title"] == HOSTILE
    assert data["problems"] == [HOSTILE]


def test_half_a_character_does_not_stop_the_page(tmp_path: Path, make_record: MakeRecord) -> None:
    text = written(tmp_path / "index.html", make_record(reason="lost \ud800 half", status="failed"))
    assert data_of(text)["cells"][0]["reason"] == "lost \ud800 half"


def test_only_this_script_and_this_style_may_run(tmp_path: Path, make_record: MakeRecord) -> None:
    text = written(tmp_path / "index.html", make_record())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name, inner in (("script", text.split("<script>")[1]), ("style", text.split("<style>")[1])):
        content = inner.split(f"</{name}>")[0]
        assert rules[f"{name}-src"] == f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page({"suites": [], "cells": [], "rows": [], "pool": [], "digests": [], "problems": []})
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    assert (
        re.findall(r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|fetch|XMLHttpRequest)\b", text)
        == []
    )
    assert re.findall(r"url\(|@import|srcset|<iframe|<link(?! rel=\"icon\" href=\"data:,\")", text) == []


def test_without_javascript_the_page_points_to_the_tables() -> None:
    text = page({})
    inner = text.split("<noscript>")[1].split("</noscript>")[0]
    assert 'href="README.md"' in inner
    assert "table.md" in inner


def test_every_file_of_the_page_is_used_and_is_one_small_room() -> None:
    folder = files("qbench.results.page") / "assets"
    names = {each.name for each in folder.iterdir()}
    assert names == {f"{name}.css" for name in STYLES} | {f"{name}.js" for name in SCRIPTS} | {"template.html"}
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 300, name
        assert max(map(len, text.splitlines())) <= 160 or not name.endswith(".js"), name


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_is_for(name: str) -> None:
    assert (files("qbench.results.page") / "assets" / f"{name}.js").read_text(encoding="utf-8").startswith("// ")


def test_a_page_of_many_cells_stays_small(tmp_path: Path, make_record: MakeRecord) -> None:
    count = 400
    records = [make_record(f"method-{nth % 40}", f"W{2 + nth // 40}A8", nth) for nth in range(count)]
    empty = len(written(tmp_path / "index.html"))
    assert (len(written(tmp_path / "index.html", *records)) - empty) / count < 2000
