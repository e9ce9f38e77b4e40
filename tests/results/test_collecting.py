"""What a table shows of cells that are still running: what the store has of their results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.identity import digest, file_digest
from qbench.records import Record
from qbench.results.collecting import StoreOverlay, counts_by_state
from qbench.store import Manifest, Store

MakeRecord = Callable[..., Record]
SCORE = {"value": 3.5, "delta": 0.5, "low": 0.25, "high": 0.75, "samples": 40}
PROFILE = {"size_mb": 1.5, "coverage_macs": 0.5, "coverage_parameters": 0.75, "left_out": ["conv_in"]}
CURVE = {"samples": 4, "step_index": [0], "timestep": [9], "teacher_forced": [0.5], "free_running": [0.0, 0.5]}
CONTENT: dict[str, tuple[str, dict[str, Any]]] = {
    "distance": ("score", {"score.json": SCORE, "without.json": [3.5] * 20}),
    "mse-to-fp": ("score", {"score.json": SCORE, "without.json": []}),
    "profile": ("profile", {"profile.json": PROFILE}),
    "curve": ("curve", {"curve.json": CURVE}),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def pending(make_record: MakeRecord) -> Record:
    """A record that a run has begun with; its results have names, and no content yet."""
    results = {name: digest({"result": name}) for name in CONTENT}
    return make_record(status="pending", figures={}, profile=None, stages=[], environment={}, results=results)


def finish(store: Store, *names: str) -> None:
    """Put results into the store, as the run does when it has computed them."""
    for name in names:
        kind, files = CONTENT[name]
        description = {"result": name}
        made = digest(description)
        with store.claim(made), store.pending(made) as folder:
            for file, content in files.items():
                (folder / file).write_text(json.dumps(content))
            digests = {file: file_digest(folder / file) for file in files}
            store.publish(folder, Manifest(kind, made, "", description, digests, 1.0, 1.0, 1.0))


def test_without_anything_in_the_store_it_stays_as_it_is(store: Store, pending: Record):
    assert StoreOverlay(store)(pending) == pending


def test_what_is_there_is_shown_and_it_stays_pending(store: Store, pending: Record):
    finish(store, "distance", "profile")
    shown = StoreOverlay(store)(pending)
    assert shown.status == "pending"
    assert list(shown.figures) == ["distance"]
    assert (shown.figures["distance"].value, len(shown.figures["distance"].without)) == (3.5, 20)
    assert shown.profile is not None
    assert shown.profile.left_out == ["conv_in"]
    assert shown.curve is None


def test_with_everything_there_it_is_complete(store: Store, pending: Record):
    finish(store, *CONTENT)
    shown = StoreOverlay(store)(pending)
    assert shown.status == "complete"
    assert shown.curve is not None
    assert shown.curve.free_running == [0.0, 0.5]


def test_a_cell_that_cannot_have_a_metric_is_no_more_complete_for_it(store: Store, pending: Record):
    results = {name: each for name, each in pending.results.items() if name != "mse-to-fp"}
    finish(store, "distance", "profile", "curve")
    assert StoreOverlay(store)(pending.model_copy(update={"results": results})).status == "complete"


@pytest.mark.parametrize("status", ["complete", "failed"])
def test_a_settled_record_is_left_alone(store: Store, pending: Record, status: str):
    finish(store, *CONTENT)
    settled = pending.model_copy(update={"status": status})
    assert StoreOverlay(store)(settled) is settled


def test_a_damaged_artefact_is_named_and_not_shown(store: Store, pending: Record):
    finish(store, *CONTENT)
    made = pending.results["distance"]
    (store.folder("score", made) / "score.json").write_text('{"value": 0.0, "samples": 40}')
    overlay = StoreOverlay(Store(store.root, read_only=True))
    shown = overlay(pending)
    assert (shown.status, list(shown.figures)) == ("pending", ["mse-to-fp"])
    assert overlay.damaged == [
        f"micro.round.W4A8.s0: the artefact score {made[:12]} in the store is damaged; the next run computes it again"
    ]


def test_a_store_that_is_not_there_is_empty_and_not_made(tmp_path: Path, pending: Record):
    assert StoreOverlay(Store(tmp_path / "nowhere", read_only=True))(pending) == pending
    assert not (tmp_path / "nowhere").exists()


def test_cells_are_counted_by_what_became_of_them(make_record: MakeRecord, store: Store, pending: Record):
    finish(store, "distance", "profile")
    records = [make_record(), make_record(status="failed", reason="no"), StoreOverlay(store)(pending)]
    untouched = pending.model_copy(update={"results": {"distance": "0" * 64}})
    assert counts_by_state([*records, untouched]) == {"complete": 1, "failed": 1, "begun": 1, "not run": 1}
