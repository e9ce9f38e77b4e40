"""The site builds without a warning, and needs nothing from elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pages import DOCS, ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site strictly: an unknown link, anchor or page fails it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    surroundings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    assert (site / "index.html").is_file()
    missing = [page.name for page in DOCS.glob("*.md") if not (site / f"{page.stem}.html").is_file()]
    assert missing == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.parent != site / "results"]
    assert len(pages) > 20
    remote = {f"{page.name}: {address}" for page in pages for address in _loaded(page) if _is_remote(address)}
    assert remote == set()
    styles = [sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css")]
    assert [
        found for sheet in styles for found in re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\"']*", sheet)
    ] == []


def test_the_leaderboard_and_the_tables_come_along(site: Path) -> None:
    assert (site / "results" / "index.html").read_bytes() == (ROOT / "results" / "index.html").read_bytes()
    assert "qdiffusion-fast" in (site / "results" / "methods" / "table.html").read_text(encoding="utf-8")


def _is_remote(address: str) -> bool:
    return address.startswith(("http:", "https:", "//"))


def _loaded(page: Path) -> Iterator[str]:
    """Yield the addresses of what a browser would load with a page."""
    parser = _Loads()
    parser.feed(page.read_text(encoding="utf-8"))
    yield from parser.found


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href") or "")
        elif tag in LOADED:
            self.found.append(given.get(LOADED[tag]) or "")
