"""Files of published figures that somebody else wrote."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from qbench.results.published import published_folders, read_published

Fuzz = Callable[..., Counter[str]]
Law = Callable[..., str]
SHIPPED = sorted(published_folders(Path("/nowhere/results"))[0].glob("*.yaml"))


def reading(folder: Path) -> str:
    figures, problems = read_published(["some"], [folder])
    assert len(problems) <= (0 if figures else 1)  # a table without a row has no figure, and is no problem
    assert all(each.startswith("suites/published/some.yaml") for each in problems)
    return "refused" if problems else "works"


def test_good_ones_with_edits(fuzz: Fuzz, workplace: Path, hostile: Any):
    originals = [yaml.safe_load(path.read_text()) for path in SHIPPED]

    def prepare(example: Any) -> Callable[[], str]:
        number, edits = example
        content = hostile.edited(originals[number], edits)
        (workplace / "some.yaml").write_text(hostile.nested(yaml.safe_dump(content)), errors="surrogatepass")
        return partial(reading, workplace)

    counts = fuzz(prepare, st.tuples(st.integers(0, len(SHIPPED) - 1), hostile.edits), 25, 900)
    assert counts["works"]
    assert counts["refused"]


def test_their_text_with_edits(fuzz: Fuzz, workplace: Path, hostile: Any):
    originals = [path.read_bytes() for path in SHIPPED]

    def prepare(example: Any) -> Callable[[], str]:
        number, edits = example
        (workplace / "some.yaml").write_bytes(hostile.edited_bytes(originals[number], edits))
        return partial(reading, workplace)

    counts = fuzz(prepare, st.tuples(st.integers(0, len(SHIPPED) - 1), hostile.byte_edits), 15, 400)
    assert counts["refused"]


def test_a_leaderboard_beside_them(
    fuzz: Fuzz, keeps_the_law: Law, finished_suite: Path, workplace: Path, nothing_beside: None, hostile: Any
):
    """The figures are of the suite that ran, so that they are really compared and told."""
    figures = {
        "paper": "A paper",
        "url": "https://example.org/a",
        "protocol": {"samples": 12, "sampler": {"name": "ddim", "steps": 4, "eta": 0.0}, "boundary_bits": None},
        "checked": True,
        "read_in": "the paper",
        "tables": [
            {
                "table": "table 1",
                "workload": "micro",
                "full_precision": {"micro-distance": 0.1},
                "note": "a note",
                "rows": [{"method": "round", "bits": "W4A8", "figures": {"micro-distance": {"value": 0.2, "band": 1}}}],
            }
        ],
    }
    (workplace / "published").mkdir()
    for path in (workplace / "results" / "micro" / "records").glob("*.json"):
        path.write_text(path.read_text().replace('"published": []', '"published": ["some"]'))
    words = ("leaderboard", "results", "--published", "published")

    def prepare(edits: Any) -> Callable[[], str]:
        content = hostile.nested(yaml.safe_dump(hostile.edited(figures, edits)))
        (workplace / "published" / "some.yaml").write_text(content, errors="surrogatepass")
        return partial(keeps_the_law, *words)

    prepare([])()
    assert "0.2" in (workplace / "results" / "micro" / "table.md").read_text()
    assert fuzz(prepare, hostile.edits, 8, 60, workplace / "results")["works"]
