"""Suite files that no reasonable person would write."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

Fuzz = Callable[..., Counter[str]]
Law = Callable[..., str]
RICH: dict[str, Any] = {
    "name": "micro",
    "title": "A title",
    "include": ["other.yaml"],
    "workloads": ["micro", {"name": "micro", "as": "twin", "sampler": {"name": "ddim", "steps": 3, "eta": 0.5}}],
    "methods": ["round", {"name": "round", "preset": "tight", "settings": {"share": 0.5}, "as": "mine"}],
    "bits": ["W4A32", "W4A8"],
    "metrics": ["micro-distance", {"name": "micro-contrast", "settings": {"power": 3}}],
    "samples": 12,
    "steps": 4,
    "seeds": [0, 1],
    "boundary_bits": 8,
    "published": ["q-diffusion"],
    "exclude": [{"method": "round", "bits": "W4A32", "seed": 1}],
    "standin": {"steps": 2, "samples": 4, "boundary_bits": None, "metrics": ["mse-to-fp"]},
}
MODELS: dict[str, Any] = {
    "name": "models",
    "workloads": [
        {
            "name": "own",
            "pipeline": "./model",
            "sampler": {"name": "ddim", "steps": 3},
            "reference": {"images": "./images"},
            "settings": {"revision": "main"},
        },
        {"name": "tiny-sd", "settings": {"captions": "captions.txt"}},
    ],
    "methods": [{"name": "external", "settings": {"denoiser": "./elsewhere"}}],
    "bits": ["W4A8"],
    "metrics": ["mse-to-fp", {"name": "fid", "settings": {"weights": "./weights.pth"}}],
    "samples": 4,
}
PIECES = (
    "name: a\n", "workloads: [micro]\n", "- ", "&a ", "*a", "<<: ", "{", "}", "[", "]", "? ", ": ", "|\n", ">\n", "!!",
    "!!binary ", "!!set ", "!!omap ", "!!timestamp ", "%YAML 1.1\n", "---\n", "...\n", "'", '"', "\\x00", "\t", "\x00",
    "\ufeff", "2001-01-01 ", "0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00", ".inf", ".nan", "0x", "1_0", "a",
)  # fmt: skip


@pytest.fixture
def commands(keeps_the_law: Law, micro_suite: Callable[..., Path], nothing_beside: None) -> Callable[[Path], str]:
    """Return a function that gives a file to every command that takes a suite and computes nothing."""
    micro_suite("other.yaml", name="other", methods=["other-round"])

    def run(path: Path) -> str:
        answers = [keeps_the_law("check", path.name)]
        answers += [keeps_the_law(*words) for words in (("plan", path.name), ("check", path.name, "--standin"))]
        return answers[0]

    return run


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def test_bytes_and_text(fuzz: Fuzz, commands: Callable[[Path], str], workplace: Path):
    path = workplace / "some.yaml"
    junk = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=20).map("".join)

    def prepare(content: str | bytes) -> Callable[[], str]:
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return partial(commands, path)

    assert fuzz(prepare, st.one_of(junk, junk, st.binary(max_size=60)), 40, 500, workplace / "store")["refused"]


def test_a_good_one_with_edits(fuzz: Fuzz, commands: Callable[[Path], str], workplace: Path, hostile: Any):
    def prepare(edits: Any) -> Callable[[], str]:
        text = yaml.safe_dump(hostile.edited(RICH, edits), sort_keys=False, allow_unicode=len(edits) > 1)
        return partial(commands, written(workplace / "some.yaml", hostile.nested(text)))

    counts = fuzz(prepare, hostile.edits, 50, 700, workplace / "store")
    assert counts["works"]
    assert counts["refused"]


def test_models_and_files_of_ones_own(fuzz: Fuzz, commands: Callable[[Path], str], workplace: Path, hostile: Any):
    def prepare(edits: Any) -> Callable[[], str]:
        text = yaml.safe_dump(hostile.edited(MODELS, edits), sort_keys=False)
        return partial(commands, written(workplace / "some.yaml", hostile.nested(text)))

    assert fuzz(prepare, hostile.edits, 15, 150, workplace / "store", workplace / "downloads")["refused"]


def test_the_text_of_a_good_one_with_edits(fuzz: Fuzz, commands: Callable[[Path], str], workplace: Path, hostile: Any):
    good = yaml.safe_dump(RICH, sort_keys=False).encode()

    def prepare(edits: Any) -> Callable[[], str]:
        (workplace / "some.yaml").write_bytes(hostile.edited_bytes(good, edits))
        return partial(commands, workplace / "some.yaml")

    counts = fuzz(prepare, hostile.byte_edits, 30, 400, workplace / "store")
    assert counts["works"]
    assert counts["refused"]


def test_files_that_include_each_other(fuzz: Fuzz, commands: Callable[[Path], str], workplace: Path):
    names = ["a.yaml", "b.yaml", "c.yaml"]
    edges = st.lists(st.tuples(st.sampled_from(names), st.sampled_from([*names, "smoke", "../a.yaml"])), max_size=6)

    def prepare(found: list[tuple[str, str]]) -> Callable[[], str]:
        for name in names:
            include = [other for one, other in found if one == name]
            base = {"name": name[0], "workloads": ["micro"], "methods": ["round"], "bits": ["W4A8"]}
            text = yaml.safe_dump(base | {"metrics": ["mse-to-fp"], "samples": 12, "include": include})
            written(workplace / name, text)
        return partial(commands, workplace / "a.yaml")

    counts = fuzz(prepare, edges, 10, 60, workplace / "store")
    assert counts["works"]
    assert counts["refused"]


def test_what_is_run_writes_to_its_store_and_results_only(
    fuzz: Fuzz, keeps_the_law: Law, workplace: Path, nothing_beside: None, hostile: Any
):
    """Whatever names things is drawn, while the work stays small."""
    base = {"workloads": ["micro"], "bits": ["W4A32"], "metrics": ["mse-to-fp"], "samples": 2}
    good = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}", fullmatch=True)
    one_is_bad = [{"name": hostile.texts, "label": good}, {"name": good, "label": hostile.texts}]
    names = st.one_of(
        *(
            st.fixed_dictionaries({"title": hostile.texts, **each})
            for each in [{"name": good, "label": good}, *one_is_bad]
        )
    )

    def prepare(found: dict[str, str]) -> Callable[[], str]:
        method = {"name": "round", "as": found["label"]}
        suite = base | {"name": found["name"], "title": found["title"], "methods": [method]}
        written(workplace / "some.yaml", hostile.nested(yaml.safe_dump(suite)))
        return partial(keeps_the_law, "run", "some.yaml")

    assert prepare({"name": "micro", "title": "", "label": "mine"})() == "works"
    counts = fuzz(prepare, names, 12, 60, workplace / "store", workplace / "results")
    assert counts["works"]
    assert counts["refused"]
