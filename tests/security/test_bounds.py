"""Small files that would grow without bound, or lead as deep as no stack reaches."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import QbenchError
from qbench.export.schema import read_info
from qbench.quant.checkpoint import checkpoint_digest
from qbench.records import read_record
from qbench.store.artefact import read_artefact
from qbench.workloads.coco_captions import _annotated
from qbench.workloads.hub_folder import _named_by
from qbench.workloads.json_file import read_json
from qbench.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_NODES, parse_value, read_yaml

DEEP = ("[" * 200_000 + "]" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000, "[" * 200_000)
INDEX = "diffusion_pytorch_model.safetensors.index.json"
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "record": ("record.json", read_record),
    "manifest of an artefact": ("manifest.json", lambda path: read_artefact(path.parent)),
    "exported folder": ("qbench.json", lambda path: read_info(path.parent)),
    "configuration": ("config.json", read_json),
    "index of weights": (INDEX, lambda path: checkpoint_digest(path.parent)),
    "index on a hub": (INDEX, lambda path: _named_by(f"unet/{INDEX}", path)),
    "captions": ("captions_val2014.json", _annotated),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", DEEP, ids=["lists", "objects", "open"])
def test_json_that_leads_deep(tmp_path: Path, name: str, content: str):
    file, reader = READERS[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(QbenchError, match=file):
        reader(tmp_path / file)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "", "..", ".", "a\0b", 7, None, ["a"]])
@pytest.mark.parametrize("reader", ["index of weights", "index on a hub"])
def test_an_index_names_files_beside_it_only(tmp_path: Path, name: Any, reader: str):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(QbenchError, match=INDEX):
        READERS[reader][1](tmp_path / INDEX)


def laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(30, 9),
        laughs(2_000, 2),
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "a: " + "{a: " * 5_000,
        "[" + ",".join("a" * 1 for _ in range(MAX_NODES + 1)) + "]",
        "a: " + "x" * MAX_BYTES,
        "\n".join(f"a{place}: &a{place} [*a{place - 1}]" if place else "a0: &a0 1" for place in range(5_000)),
    ],
    ids=["wide", "long", "deep", "open", "many", "large", "chain"],
)  # fmt: skip
def test_yaml_is_bounded(tmp_path: Path, text: str):
    (tmp_path / "a.yaml").write_text(text)
    begun = time.process_time()
    with pytest.raises(QbenchError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("text", ["9" * 5_000, "1" + ":59" * 3_000, "0x" + "f" * 5_000, "1e" + "9" * 400, "!!float ''",
                                  "9999-12-31T23:59:59-12:00", "2001-01-01T99:99:99Z", "!!int 0b"])  # fmt: skip
def test_a_value_is_a_value_or_is_refused(text: str):
    begun = time.process_time()
    try:
        assert parse_value(text) is not None
    except QbenchError as error:
        assert "is not a value in YAML" in str(error)  # noqa: PT017 (both are right)
    assert time.process_time() - begun < 5
