"""``qbench diff`` as a user meets it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]
FULL, W4A32, W4A8 = (f"micro.{name}.s0" for name in ("full-precision.W32A32", "round.W4A32", "round.W4A8"))


@pytest.fixture
def store(finished_suite: Path, workplace: Path) -> Path:
    return workplace / "store"


def artefacts(store: Path, kind: str) -> list[Path]:
    return sorted((store / "artefacts" / kind).iterdir())


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


class TestCells:
    def test_the_same_is_0(self, qbench: Qbench, store: Path):
        answer = qbench("diff", f"micro/{W4A8}", f"results/micro/records/{W4A8}.json")
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.splitlines()[0] == f"{W4A8} -> {W4A8}: the same"
        assert "artefacts that are the same: " in answer.out

    def test_two_that_differ_are_1_with_settings_figures_and_the_first_tensor(self, qbench: Qbench, store: Path):
        answer = qbench("diff", f"micro/{W4A32}", f"micro/{W4A8}")
        assert (answer.code, answer.err) == (1, "")
        assert f"{W4A32} -> {W4A8}: they differ\nsettings\n" in answer.out
        assert '  bits: "W4A32" -> "W4A8"\n' in answer.out
        assert "\nfigures\n  micro-distance: " in answer.out
        assert "\nfirst stage whose artefacts differ: sample " in answer.out
        assert "\n  images.npy: the array (uint8 [12, 1, 8, 8]): " in answer.out

    def test_json(self, qbench: Qbench, store: Path):
        found = qbench("diff", f"micro/{FULL}", f"micro/{W4A8}", "--json").json
        assert (found["same"], found["cells"]) == (False, [FULL, W4A8])
        assert {"path": "bits", "first": "W32A32", "second": "W4A8"} in found["settings"]
        figures = {each["metric"]: each for each in found["figures"]}
        assert figures["mse-to-fp"]["verdict"] == "on one side only"
        assert found["stage"]["file"]["tensor"]["differing"] > 0

    def test_without_a_store_the_records_are_compared(self, qbench: Qbench, store: Path, workplace: Path):
        shutil.rmtree(store)
        answer = qbench("diff", f"micro/{W4A32}", f"micro/{W4A8}")
        assert answer.code == 1
        assert "artefacts: none of both in the store" in answer.out
        assert not store.exists()

    def test_seconds_and_hardware_are_shown_and_do_not_count(self, qbench: Qbench, store: Path, workplace: Path):
        path = workplace / "other.json"
        shutil.copy(workplace / "results" / "micro" / "records" / f"{W4A8}.json", path)
        changed(path, lambda raw: raw["environment"].update(device="cuda:0"))
        changed(path, lambda raw: raw["stages"][0].update(seconds=1000.0))
        answer = qbench("diff", f"micro/{W4A8}", "other.json")
        assert answer.code == 0
        assert '  device: "cpu" -> "cuda:0"\n' in answer.out

    def test_a_hostile_name_stays_text(self, qbench: Qbench, store: Path, workplace: Path):
        path = workplace / "other.json"
        shutil.copy(workplace / "results" / "micro" / "records" / f"{W4A8}.json", path)
        changed(path, lambda raw: raw.update(label="a\nb\x1b[2J"))
        changed(path, lambda raw: raw["environment"].update({"x\n\x1b[2J": "y\n\x1b[2J"}))
        answer = qbench("diff", f"micro/{W4A8}", "other.json")
        assert answer.code == 0
        assert "\x1b" not in answer.out
        assert r"micro.a\nb\x1b[2J.W4A8.s0: the same" in answer.out


class TestFolders:
    @pytest.fixture
    def copy(self, store: Path, workplace: Path) -> Path:
        shutil.copytree(workplace / "results", workplace / "copy")
        return workplace / "copy"

    @pytest.mark.parametrize(("first", "second"), [("results", "copy"), ("micro", "copy/micro")])
    def test_the_same_is_0(self, qbench: Qbench, copy: Path, first: str, second: str):
        answer = qbench("diff", first, second)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out == "3 cells the same, 0 differ, 0 only in the first, 0 only in the second\n"

    def test_each_cell_that_differs_is_told_with_what_does(self, qbench: Qbench, copy: Path):
        changed(copy / "micro" / "records" / f"{W4A8}.json", lambda raw: raw["figures"]["mse-to-fp"].update(value=9.0))
        (copy / "micro" / "records" / f"{FULL}.json").unlink()
        (copy / "micro" / "records" / "a.json").write_text("{}")
        answer = qbench("diff", "results", "copy")
        assert answer.code == 1
        lines = answer.out.splitlines()
        assert lines[0] == f"only in the first: micro/{FULL}"
        assert lines[1] == f"micro/{W4A8}"
        assert lines[2].startswith("  mse-to-fp: ")
        assert lines[2].endswith("differs (there is no interval)")
        assert lines[3] == "1 cells the same, 1 differ, 1 only in the first, 0 only in the second"
        assert lines[4].startswith("not compared: micro/records/a.json: ")

    def test_what_cannot_be_compared_is_never_called_the_same(self, qbench: Qbench, copy: Path):
        for folder in (copy, copy.parent / "results"):
            (folder / "micro" / "records" / f"{W4A8}.json").write_text("{}")
        answer = qbench("diff", "results", "copy", "--json")
        assert (answer.code, answer.json["same"], answer.json["same_cells"]) == (2, False, 2)
        assert len(answer.json["problems"]) == 2

    def test_unrelated_ones_say_so_in_a_few_lines(self, qbench: Qbench, copy: Path):
        for index in range(30):
            shutil.copytree(copy / "micro", copy / f"suite-{index}")
        shutil.rmtree(copy / "micro")
        answer = qbench("diff", "results", "copy")
        assert answer.code == 1
        assert answer.out.startswith("no cell in common\n")
        assert len(answer.out.splitlines()) < 30
        assert len(qbench("diff", "results", "copy", "--json").json["only_second"]) == 90

    def test_a_suite_and_all_results_are_not_of_one_kind(self, qbench: Qbench, copy: Path):
        answer = qbench("diff", "results", "copy/micro")
        assert (answer.code, answer.out) == (2, "")
        assert "compare two of a kind" in answer.err


class TestArtefacts:
    def test_the_same_is_0(self, qbench: Qbench, store: Path):
        folder = artefacts(store, "sample")[0]
        answer = qbench("diff", folder, folder.name[:16])
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.splitlines()[0].endswith(": the same")

    def test_settings_are_followed_through_the_inputs(self, qbench: Qbench, store: Path, micro_suite: MicroSuite):
        """Images differ because the method's share of the range does, three stages before."""
        qbench("run", micro_suite(methods=[{"name": "round", "settings": {"share": 0.5}, "as": "half"}], name="half"))
        stages = []
        for path in (f"results/micro/records/{W4A8}.json", "results/half/records/micro.half.W4A8.s0.json"):
            raw = json.loads((store.parent / path).read_text())
            stages.append(next(stage["digest"] for stage in raw["stages"] if stage["stage"] == "sample"))
        answer = qbench("diff", *(digest[:20] for digest in stages))
        assert answer.code == 1
        assert "inputs.weights.parameters.method.settings.share: 1.0 -> 0.5" in answer.out
        assert "images.npy: the array (uint8 " in answer.out
        found = qbench("diff", *stages, "--json").json
        assert found["kind"] == "sample"
        assert found["files"][0]["tensor"]["elements"] == 12 * 64

    def test_two_kinds_cannot_be_compared(self, qbench: Qbench, store: Path):
        answer = qbench("diff", artefacts(store, "sample")[0], artefacts(store, "weights")[0])
        assert (answer.code, answer.out) == (2, "")
        assert "compare two of a kind" in answer.err

    def test_a_damaged_one_is_an_error(self, qbench: Qbench, store: Path):
        first, second = artefacts(store, "sample")[:2]
        content = bytearray((first / "images.npy").read_bytes())
        content[-1] ^= 1
        (first / "images.npy").write_bytes(content)
        answer = qbench("diff", first, second)
        assert (answer.code, answer.out) == (2, "")
        assert "is not the file that was written" in answer.err

    def test_each_side_may_have_a_store(self, qbench: Qbench, store: Path, workplace: Path):
        shutil.copytree(store, workplace / "elsewhere")
        name = artefacts(store, "weights")[0].name
        assert qbench("diff", name, name, "--store", "store", "--store", "elsewhere").code == 0

    def test_the_start_of_several_is_an_error(self, qbench: Qbench, store: Path):
        for number in range(2):
            folder = store / "artefacts" / "sample" / f"abcd{number:060}"
            folder.mkdir()
            (folder / "manifest.json").write_text("{}")
        answer = qbench("diff", "abcd", artefacts(store, "sample")[0].name)
        assert answer.code == 2
        assert "abcd: 2 artefacts begin so" in answer.err


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("nowhere", "results"), "nowhere: no file, folder, suite or suite/cell in results"),
            (("micor", "micro"), "did you mean 'micro'?"),
            (("micro/micro.ruond.W4A8.s0", f"micro/{W4A8}"), f"no such cell in micro: did you mean '{W4A8}'?"),
            (("", "micro"), "an empty word"),
            (("x" * 5000, "micro"), "cannot be looked at"),
            (("store", "results"), "store: this folder holds neither records nor an artefact"),
            (("micro.yaml", "micro.yaml"), "micro.yaml: cannot be read as a record"),
            (("results", f"micro/{W4A8}"), "results is a folder of results of suites, and micro/"),
            (("micro", "micro", "--store", "stroe"), "--store stroe: no such folder"),
            (("micro", "micro", *["--store", "store"] * 3), "--store is given 3 times"),
            (("0123456789abcdef", "micro"), "0123456789abcdef: no file, folder"),
        ],
        ids=lambda each: each[0][:12] if isinstance(each, tuple) else None,
    )
    def test_are_one_sentence_and_2(self, qbench: Qbench, store: Path, words: tuple[str, ...], expected: str):
        answer = qbench("diff", *words)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith("qbench: ")
        assert answer.err.count("\n") == 1
        assert expected in answer.err

    def test_as_json_too(self, qbench: Qbench, store: Path):
        answer = qbench("diff", "nowhere", "results", "--json")
        assert answer.code == 2
        assert list(answer.json) == ["error"]

    def test_a_record_with_nan_is_one(self, qbench: Qbench, store: Path, workplace: Path):
        text = (workplace / "results" / "micro" / "records" / f"{W4A8}.json").read_text()
        (workplace / "nan.json").write_text(text.replace('"value": ', '"value": NaN, "was": ', 1))
        answer = qbench("diff", "nan.json", f"micro/{W4A8}")
        assert answer.code == 2
        assert "nan.json: not a record" in answer.err

    def test_a_folder_of_nothing_that_can_be_read_says_why(self, qbench: Qbench, store: Path, workplace: Path):
        (workplace / "bad" / "records").mkdir(parents=True)
        (workplace / "bad" / "records" / "a.json").write_text("{}")
        answer = qbench("diff", "bad", "micro")
        assert answer.code == 2
        assert "bad: holds no record that can be read (bad/records/a.json: record of version None" in answer.err

    @pytest.mark.parametrize("words", [("a",), ("a", "b", "c"), ("a", "b", "--tolerance", "2"), ("a", "b", "--bogus")])
    def test_wrong_usage_is_2(self, qbench: Qbench, words: tuple[str, ...]):
        assert qbench("diff", *words).code == 2


def test_ctrl_c_is_neither_the_same_nor_different(qbench: Qbench, store: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qbench.results.differences.compare.find_side", interrupted)
    answer = qbench("diff", "micro", "micro")
    assert (answer.code, answer.out) == (130, "")


def test_a_defect_is_not_a_difference(qbench: Qbench, store: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr("qbench.results.differences.compare.find_side", broken)
    answer = qbench("diff", "micro", "micro")
    assert (answer.code, answer.out) == (2, "")
    assert "ZeroDivisionError: broken" in answer.err
