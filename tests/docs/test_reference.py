"""Pages that are made from the code are as the code is now, and nothing that is installed is left out."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pages import DOCS, script
from pydantic import BaseModel

from qbench.plugins import METHODS, METRICS, WORKLOADS, Catalogue

REFERENCE = script(DOCS / "reference.py")
KEYS = [(model, name) for model in REFERENCE.MODELS for name in model.model_fields]


@pytest.mark.parametrize("page", REFERENCE.PAGES, ids=lambda page: page.name)
def test_reference_is_up_to_date(page: Path) -> None:
    """Otherwise run ``python docs/reference.py``."""
    text = page.read_text(encoding="utf-8")
    assert "<!-- end -->" in text
    assert REFERENCE.rewritten(text) == text


def test_every_part_of_the_reference_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.PAGES)
    assert [part for part in REFERENCE.PARTS if f"<!-- {part} -->" not in text] == []


@pytest.mark.parametrize(("model", "name"), KEYS, ids=[f"{model.__name__}.{name}" for model, name in KEYS])
def test_every_key_has_a_description_and_an_example_that_is_accepted(model: type[BaseModel], name: str) -> None:
    field = model.model_fields[name]
    assert field.description
    assert field.examples, f"{model.__name__}.{name}: give the field examples=[...]"
    needed: dict[str, Any] = {
        each.alias or key: each.examples[0]
        for key, each in model.model_fields.items()
        if each.is_required() and each.examples
    }
    for example in field.examples:
        model.model_validate({**needed, field.alias or name: example})


def test_the_picture_of_the_quickstart_is_drawn_from_the_committed_results() -> None:
    """Otherwise run ``python docs/studies/quickstart_table.py``."""
    drawing: ModuleType = script(DOCS / "studies" / "quickstart_table.py")
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.picture()
    assert drawing.PICTURE.stat().st_size < 60_000


def ids(catalogue: Catalogue) -> list[str]:
    return sorted({entry.name for entry in catalogue.entries() if entry.package == "qbench"})


@pytest.mark.parametrize("name", ids(METHODS))
def test_every_method_has_its_section(name: str) -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    heading = re.search(rf"^## {name}\n", text, re.MULTILINE | re.IGNORECASE)
    assert heading, f"docs/methods.md needs a section '## {name}': what it does here, and where it differs"
    assert len(text[heading.end() :].partition("\n## ")[0].split()) > 40
    assert f"\n| [`{name}`](#{name}) |" in text, f"the table of docs/methods.md has no row of {name} with a link"


@pytest.mark.parametrize(("catalogue", "page"), [(METRICS, "metrics.md"), (WORKLOADS, "workloads.md")])
def test_every_metric_and_workload_is_listed(catalogue: Catalogue, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert [name for name in ids(catalogue) if f"`{name}`" not in text] == []


def test_every_suite_that_comes_with_qbench_is_listed() -> None:
    text = (DOCS / "running.md").read_text(encoding="utf-8")
    suites = sorted(path.stem for path in (DOCS.parent / "suites").glob("*.yaml"))
    assert len(suites) > 5
    assert [name for name in suites if f"`{name}`" not in text] == []
