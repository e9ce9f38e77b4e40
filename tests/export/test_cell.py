"""From what a user types to the cell that is meant."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qbench.errors import ExportError, QbenchError, ResultsError
from qbench.export.cell import FoundCell, Request, find_cell
from qbench.store import Store

CELL = "micro.round.W4A8.s0"


@pytest.fixture
def find(workplace: Path, finished_suite: Path) -> Callable[..., FoundCell]:
    def find_one(name: str = f"micro/{CELL}", **request: Any) -> FoundCell:
        store = Store(workplace / "store", read_only=True)
        return find_cell(name, Request(Path("results"), **request), store)

    return find_one


@pytest.fixture
def record(workplace: Path, finished_suite: Path) -> Callable[..., None]:
    """Return a function that changes the cell's record."""

    def change(name: str = CELL, **changes: Any) -> None:
        path = workplace / "results" / "micro" / "records" / f"{name}.json"
        content = json.loads(path.read_text())
        content["suite"] |= changes.pop("suite", {})
        path.write_text(json.dumps(content | changes))

    return change


@pytest.mark.parametrize("name", [CELL, f"micro/{CELL}", f"results/micro/{CELL}", f"results/micro/records/{CELL}.json"])
def test_a_cell_is_found_by_its_names(name: str, find: Callable[..., FoundCell]) -> None:
    found = find(name)
    assert (found.cell.id, found.record.label) == (CELL, "round")
    assert found.artefacts.keys() == {"weights", "activations"}


def test_weights_alone(find: Callable[..., FoundCell]) -> None:
    assert find("micro.round.W4A32.s0").artefacts.keys() == {"weights"}


class TestNames:
    def test_a_typo_is_helped_with(self, find: Callable[..., FoundCell]) -> None:
        with pytest.raises(ExportError, match=f"no such cell in results: did you mean '{CELL}'"):
            find("micro.rund.W4A8.s0")
        with pytest.raises(ResultsError, match=f"no such cell in micro: did you mean '{CELL}'"):
            find("micro/micro.rund.W4A8.s0")

    @pytest.mark.parametrize("name", ["", "nothing", "/", "a\0b", "x" * 5000, "micro/*", "../.."])
    def test_names_of_nothing(self, name: str, find: Callable[..., FoundCell]) -> None:
        with pytest.raises(QbenchError):
            find(name)

    def test_a_cell_of_two_suites(self, find: Callable[..., FoundCell], workplace: Path) -> None:
        shutil.copytree(workplace / "results" / "micro", workplace / "results" / "again")
        with pytest.raises(ExportError, match=f"2 suites have this cell: name one of again/{CELL}, micro/{CELL}"):
            find(CELL)

    def test_a_folder_or_an_artefact(self, find: Callable[..., FoundCell], workplace: Path) -> None:
        for name in ("micro", "results", "results/micro"):
            with pytest.raises(
                ExportError, match=r"a folder of results, not a cell: name one cell of it, such as micro/m"
            ):
                find(name)
        (weights,) = (workplace / "store" / "artefacts" / "weights").iterdir()
        with pytest.raises(ExportError, match="an artefact of the store, not a cell"):
            find(weights.name)


class TestCells:
    def test_full_precision(self, find: Callable[..., FoundCell]) -> None:
        with pytest.raises(ExportError, match="nothing of it is quantized"):
            find("micro.full-precision.W32A32.s0")

    def test_failed(self, find: Callable[..., FoundCell], record: Callable[..., None]) -> None:
        record(status="failed", reason="weights: no luck", figures={})
        with pytest.raises(ExportError, match=r"the cell failed, so there is nothing to export \(weights: no luck\)"):
            find()

    def test_one_figure_that_failed_keeps_nobody(
        self, find: Callable[..., FoundCell], record: Callable[..., None]
    ) -> None:
        record(status="failed", reason="no weights of fid")
        assert find().cell.id == CELL

    def test_pending(self, find: Callable[..., FoundCell], record: Callable[..., None]) -> None:
        record(status="pending", figures={})
        with pytest.raises(
            ExportError, match=r"not finished: `qbench run micro\.yaml --only workload=micro --only method"
        ):
            find()

    def test_images_from_elsewhere(
        self, qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path
    ) -> None:
        for index in range(2):
            Image.new("L", (8, 8), index).save(workplace / f"{index}.png")
        external = {"name": "external", "settings": {"bits": "W4A8", "images": str(workplace)}}
        path = micro_suite(methods=[external], bits=["W4A8"], samples=2, metrics=["micro-distance"])
        assert qbench("run", path).code == 0
        store = Store(workplace / "store", read_only=True)
        with pytest.raises(ExportError, match="its images were made elsewhere"):
            find_cell("micro.external.W4A8.s0", Request(Path("results")), store)


class TestSuites:
    def test_one_that_lies_elsewhere(self, find: Callable[..., FoundCell], workplace: Path) -> None:
        (workplace / "home").mkdir()
        shutil.move(workplace / "micro.yaml", workplace / "home")
        with pytest.raises(
            ExportError, match=r"its suite micro\.yaml is not in this folder: say where it is with --suite"
        ):
            find()
        assert find(suite="home/micro.yaml").cell.id == CELL

    def test_one_that_nobody_named(self, find: Callable[..., FoundCell], record: Callable[..., None]) -> None:
        record(suite={"file": ""})
        with pytest.raises(ExportError, match="does not say which suite file it is of: name it with --suite"):
            find()

    def test_one_that_says_something_else_now(self, find: Callable[..., FoundCell], workplace: Path) -> None:
        path = workplace / "micro.yaml"
        path.write_text(path.read_text().replace("samples: 12", "samples: 13"))
        with pytest.raises(
            ExportError, match=r"something else now than the cell was run with \(samples\): run it again"
        ):
            find()
        path.write_text(path.read_text().replace("W4A8", "W5A8"))
        with pytest.raises(ExportError, match=r"has no such cell \(any more\)"):
            find()

    def test_values_that_the_command_line_gave(
        self, find: Callable[..., FoundCell], record: Callable[..., None]
    ) -> None:
        record(suite={"overrides": {"samples": 12, "bits": ["W4A8"]}})
        assert find().cell.id == CELL
        record(suite={"overrides": {"workloads": "..."}})
        with pytest.raises(
            ExportError, match=r"run with --set workloads=\.\.\., whose paths records leave out: give the"
        ):
            find()
        assert find(overrides={"workloads": ["micro"]}).cell.id == CELL


class TestArtefacts:
    def test_an_empty_store(self, find: Callable[..., FoundCell], workplace: Path, record: Callable[..., None]) -> None:
        shutil.rmtree(workplace / "store")
        record(suite={"overrides": {"samples": 12}})
        with pytest.raises(
            ExportError, match=r"packed weights are not in .*store: `qbench run micro\.yaml --set"
        ) as caught:
            find(options=["--store", "a b"])
        command = str(caught.value).partition("`")[2].partition("`")[0]
        assert command == (
            "qbench run micro.yaml --set samples=12 --only workload=micro --only method=round --only bits=W4A8 "
            "--only seed=0 --store 'a b'"
        )

    @pytest.mark.parametrize("kind", ["weights", "activations"])
    def test_gone_or_damaged_beside_finished_figures(
        self, kind: str, find: Callable[..., FoundCell], workplace: Path
    ) -> None:
        """`qbench run` would find nothing to do."""
        for path in (workplace / "store" / "artefacts" / kind).glob(f"*/{kind}.safetensors"):
            path.write_bytes(b"damaged")
        with pytest.raises(ExportError, match=r"are damaged there .* with a --store of its own"):
            find()
        shutil.rmtree(workplace / "store" / "artefacts" / kind)
        with pytest.raises(ExportError, match=r"are not in .* with a --store of its own"):
            find()


def test_a_record_that_was_taken_elsewhere(find: Callable[..., FoundCell], workplace: Path) -> None:
    shutil.move(workplace / "results" / "micro" / "records" / f"{CELL}.json", workplace / "mine.json")
    assert find("mine.json").cell.id == CELL
