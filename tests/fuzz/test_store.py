"""A store that somebody has been at."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from qbench.identity import digest

Fuzz = Callable[..., Counter[str]]
Law = Callable[..., str]


COMMANDS = {
    "ls": (["store", "ls"], 6, 50),
    "verify": (["store", "verify"], 15, 80),
    "plan": (["plan", "micro.yaml", "--set", "samples=13"], 6, 50),
    "collect": (["leaderboard", "results", "--collect"], 6, 50),
    "run": (["run", "micro.yaml"], 3, 20),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_read_manifests(
    fuzz: Fuzz, keeps_the_law: Law, finished_suite: Path, workplace: Path, nothing_beside: None, hostile: Any, name: str
):
    manifests = sorted((workplace / "store" / "artefacts").glob("*/*/manifest.json"))
    originals = {path: path.read_text() for path in manifests}
    words, few, many = COMMANDS[name]
    for path in (workplace / "results" / "micro" / "records").glob("*.json"):
        if name == "collect":
            path.write_text(path.read_text().replace('"status": "complete"', '"status": "pending"'))
    keeps_the_law(*words)

    def prepare(example: Any) -> Callable[[], str]:
        number, vouches, edits = example
        for path, content in originals.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        path = manifests[number % len(manifests)]
        content = hostile.edited(json.loads(originals[path]), edits)
        if vouches and isinstance(content, dict):
            with suppress(TypeError, ValueError, KeyError):
                content["digest"] = digest(content["description"])
        path.write_text(hostile.nested(json.dumps(content)))
        return partial(keeps_the_law, *words)

    places = (workplace / "store", workplace / "results")
    assert fuzz(prepare, st.tuples(st.integers(0, 50), st.booleans(), hostile.edits), few, many, *places)["works"]
