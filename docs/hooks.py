"""What mkdocs is told beyond mkdocs.yml: the README is the home page, and files that pages link to come along.

Links stay those that work in the repository (``../results/methods/table.md``); on the site each such file has the same
path below the site's root, so that the site needs nothing but itself.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = "docs"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)((?:#[^)\s]*)?)(?=\))")
README = "README.md"
HOME = "index.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, and every file outside of docs/ that a page links to, and what these link to."""
    files.append(File.generated(config, HOME, content=_text(README)))
    waiting = [README, *(f"{DOCS}/{file.src_uri}" for file in files.documentation_pages() if file.src_uri != HOME)]
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        for target in _targets(source):
            if target in seen or not (ROOT / target).is_file():
                continue
            seen.add(target)
            if not target.startswith(f"{DOCS}/"):
                files.append(_outside(target, config))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links as the repository has them into links as the site has them."""
    source = _source(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def relinked(match: re.Match[str]) -> str:
        target = _resolved(source, match[1])
        if (ROOT / target).is_dir():
            target = f"{target}/table.md"
        return posixpath.relpath(_place(target), here or ".") + match[2]

    return LINK.sub(relinked, markdown).replace("<details>", "<details markdown>")


def _source(src_uri: str) -> str:
    """Return the path in the repository of a page of the site."""
    if src_uri == HOME:
        return README
    candidates = [f"{DOCS}/{src_uri}", src_uri, posixpath.join(posixpath.dirname(src_uri), README)]
    return next(each for each in candidates if (ROOT / each).is_file())


def _place(path: str) -> str:
    """Return the path on the site of a file of the repository.

    mkdocs makes an index.html of every README.md, and a folder may have one of its own.
    """
    if path == README:
        return HOME
    return path.removeprefix(f"{DOCS}/").removesuffix(README) + ("overview.md" if path.endswith(README) else "")


def _targets(source: str) -> list[str]:
    return [_resolved(source, match[1]) for match in LINK.finditer(_text(source))]


def _resolved(source: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _outside(path: str, config: MkDocsConfig) -> File:
    return File.generated(config, _place(path), abs_src_path=str(ROOT / path))
