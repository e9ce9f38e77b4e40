import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qbench.execution.executor import Crew

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]


def rows(workplace: Path, suite: str = "micro", results: str = "results") -> list[dict[str, str]]:
    with (workplace / results / suite / "table.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results_of(workplace: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (workplace / "results").rglob("*") if path.is_file()}


def test_the_smallest_shipped_suite_from_its_name_to_its_table(qbench: Qbench, workplace: Path):
    answer = qbench("run", "smoke", "--device", "cpu")
    assert answer.code == 0, answer.err
    full, w4a32, w4a8 = rows(workplace, "smoke")
    assert [row["status"] for row in (full, w4a32, w4a8)] == ["complete"] * 3
    assert [row["bits"] for row in (full, w4a32, w4a8)] == ["W32A32", "W4A32", "W4A8"]
    assert full["mse-to-fp"] == ""
    assert 0 < float(w4a32["mse-to-fp"]) < 1
    assert 0 < float(full["fd-fashion"]) < 20
    assert float(w4a32["size_mb"]) < float(full["size_mb"]) / 4
    assert float(full["coverage_macs"]) == 0 < float(w4a32["coverage_macs"]) <= 1
    folder = workplace / "results" / "smoke"
    for name in ("table.md", "table.tex", "curves.csv", "costs.csv", "costs.md", "protocols.json"):
        assert (folder / name).stat().st_size > 0
    assert {path.name for path in (folder / "media").iterdir()} == {
        "curves.tiny-ddim.svg",
        "pareto.tiny-ddim.svg",
        "strips",
        "tiny-ddim.s0.png",
    }
    assert len(list((folder / "records").iterdir())) == 3


def test_the_table_goes_to_standard_output_and_everything_else_does_not(qbench: Qbench, finished_suite: Path):
    answer = qbench("run", finished_suite)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["full-precision", "round", "round"]
    assert "micro-distance ↓" in lines[-4]
    assert answer.err.splitlines() == ["0 of 20 stages to compute", "results/micro/table.md"]


def test_a_terminal_that_knows_no_arrows_gets_a_table_too(finished_suite: Path, workplace: Path):
    """Latin-1 is what many clusters and Windows have."""
    command = [sys.executable, "-m", "qbench", "run", str(finished_suite)]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode("latin-1")
    assert "micro-distance" in done.stdout.decode("latin-1")


def test_a_log_has_one_line_for_each_stage(qbench: Qbench, micro_suite: MicroSuite):
    answer = qbench("run", micro_suite(bits=["W4A32"]))
    lines = answer.err.splitlines()
    assert lines[0] == "12 of 12 stages to compute"
    assert [line.partition("]")[0] for line in lines[1:-1]] == [f"[{number}/12" for number in range(1, 13)]


def test_json_is_all_that_standard_output_says(qbench: Qbench, finished_suite: Path):
    answer = qbench("run", finished_suite, "--json")
    assert answer.code == 0
    assert Path(answer.json["folder"]) == Path("results/micro")
    assert [(cell["label"], cell["bits"], cell["status"]) for cell in answer.json["cells"]] == [
        ("full-precision", "W32A32", "complete"),
        ("round", "W4A32", "complete"),
        ("round", "W4A8", "complete"),
    ]
    assert answer.json["cells"][1]["figures"]["mse-to-fp"]["value"] > 0


def test_results_and_store_go_where_they_are_sent(qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
    path = micro_suite(bits=["W4A32"])
    assert qbench("run", path, "--results", "some/where", "--store", "else/where").code == 0
    assert len(rows(workplace, results="some/where")) == 2
    assert (workplace / "else" / "where" / "artefacts").is_dir()
    assert not (workplace / "results").exists()
    assert not (workplace / "store").exists()


def test_the_store_is_in_the_cache_of_the_user_unless_something_says_otherwise(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("QBENCH_STORE")
    for variable in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(workplace / "home"))
    assert qbench("run", micro_suite(bits=["W4A32"])).code == 0
    (store,) = (workplace / "home").rglob("artefacts")
    assert store.parent.name == "store"


class TestHowItIsRun:
    @pytest.fixture
    def given(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What the command hands on, instead of running anything."""
        from qbench.execution import run

        given: dict[str, Any] = {}

        def run_suite(
            suite: Any, store: Any, results: Path, runtime: Any, listener: Any, executor: str, crew: Any
        ) -> Any:
            names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
            environment = {name: os.environ[name] for name in names}
            given.update(runtime=runtime, executor=executor, crew=crew, environment=environment)
            return run.Outcome(results, (), (), ())

        monkeypatch.setattr(run, "run_suite", run_suite)
        return given

    def test_one_process_and_four_gigabytes_unless_something_else_is_said(
        self, qbench: Qbench, micro_suite: MicroSuite, given: dict[str, Any]
    ):
        assert qbench("run", micro_suite()).code == 0
        assert (given["executor"], given["crew"]) == ("inline", Crew())
        assert given["runtime"].cache_bytes == 4_000_000_000

    @pytest.mark.parametrize(("gigabytes", "size"), [("0", 0), ("0.25", 250_000_000), ("16", 16_000_000_000)])
    def test_the_cache_is_counted_in_decimal_gigabytes(
        self, qbench: Qbench, micro_suite: MicroSuite, given: dict[str, Any], gigabytes: str, size: int
    ):
        assert qbench("run", micro_suite(), "--cache-gb", gigabytes).code == 0
        assert given["runtime"].cache_bytes == size

    @pytest.mark.parametrize(("cores", "processes", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 4, "1"), (None, 2, "1")])
    def test_processes_share_the_cores(
        self,
        qbench: Qbench,
        micro_suite: MicroSuite,
        given: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        cores: int | None,
        processes: int,
        threads: str,
    ):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert qbench("run", micro_suite(), "--processes", processes).code == 0
        assert given["crew"] == Crew(processes)
        assert given["environment"] == {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}

    def test_what_the_user_has_set_of_threads_stays(
        self, qbench: Qbench, micro_suite: MicroSuite, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ):
        user = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
        for name, value in user.items():
            monkeypatch.setenv(name, value)
        assert qbench("run", micro_suite(), "--processes", 2).code == 0
        assert given["environment"] == user

    def test_threads_that_are_asked_for_count_more_than_what_is_set(
        self, qbench: Qbench, micro_suite: MicroSuite, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert qbench("run", micro_suite(), "--processes", 2, "--threads", 3).code == 0
        assert given["crew"] == Crew(2, 3)
        assert given["environment"]["OMP_NUM_THREADS"] == "3"

    @pytest.mark.parametrize(
        ("option", "value"), [("--threads", "0"), ("--processes", "0"), ("--processes", "two"), ("--cache-gb", "-1")]
    )
    def test_what_makes_no_sense_is_wrong_usage(
        self, qbench: Qbench, micro_suite: MicroSuite, given: dict[str, Any], option: str, value: str
    ):
        answer = qbench("run", micro_suite(), option, value)
        assert (answer.code, given) == (2, {})
        assert f"Invalid value for '{option}'" in answer.err

    def test_without_a_cache_the_figures_are_the_same(
        self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path, uninterrupted: Path
    ):
        assert qbench("run", micro_suite(), "--cache-gb", 0).code == 0
        whole = uninterrupted / "results" / "micro" / "table.csv"
        assert (workplace / "results" / "micro" / "table.csv").read_bytes() == whole.read_bytes()


class TestDryRun:
    @pytest.mark.parametrize("more", [(), ("--json",), ("--only", "bits=W4A8"), ("--set", "samples=3")])
    def test_it_says_what_plan_says_and_computes_nothing(
        self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path, more: tuple[str, ...]
    ):
        path = micro_suite()
        answer = qbench("run", path, "--dry-run", *more)
        assert (answer.code, answer.out) == (0, qbench("plan", path, *more).out)
        assert not (workplace / "results").exists()
        assert not list((workplace / "store").rglob("manifest.json"))


class TestOnly:
    def test_it_runs_what_agrees_and_the_full_precision_that_this_needs(
        self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path
    ):
        answer = qbench("run", micro_suite(seeds=[0, 1]), "--only", "bits=W4A32", "--only", "seed=1", "--json")
        assert [(cell["label"], cell["bits"], cell["seed"]) for cell in answer.json["cells"]] == [
            ("full-precision", "W32A32", 1),
            ("round", "W4A32", 1),
        ]
        assert len(rows(workplace)) == 2

    def test_after_a_whole_run_it_changes_nothing_and_calls_nobody_a_stranger(
        self, qbench: Qbench, finished_suite: Path, workplace: Path
    ):
        before = results_of(workplace)
        answer = qbench("run", finished_suite, "--only", "bits=W4A8")
        assert answer.code == 0
        assert results_of(workplace) == before
        assert answer.err.splitlines() == ["0 of 14 stages to compute", "results/micro/table.md"]

    def test_a_key_that_is_repeated_takes_any_of_its_values(self, qbench: Qbench, micro_suite: MicroSuite):
        answer = qbench("plan", micro_suite(seeds=[0, 1, 2]), "--only", "seed=0", "--only", "seed=2", "--json")
        assert {cell["cell"].rpartition(".")[2] for cell in answer.json["cells"]} == {"s0", "s2"}

    def test_parts_add_up_to_the_whole(self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path, uninterrupted):
        path = micro_suite()
        for bits in ("W4A8", "W4A32"):
            assert qbench("run", path, "--only", f"bits={bits}").code == 0
        for name in ("table.csv", "table.md"):
            whole = uninterrupted / "results" / "micro" / name
            assert (workplace / "results" / "micro" / name).read_bytes() == whole.read_bytes()


class TestSet:
    def test_it_replaces_values_as_yaml_writes_them(self, qbench: Qbench, micro_suite: MicroSuite):
        more = ["--set", "samples=5", "--set", "bits=[W5A32]", "--set", "seeds=[2]", "--set", "title=Another: title"]
        answer = qbench("run", micro_suite(), *more, "--json")
        assert answer.code == 1
        answer = qbench("run", micro_suite(), *more[:-1], "title='Another: title'", "--json")
        assert answer.code == 0, answer.err
        assert [(cell["bits"], cell["seed"], cell["samples"]) for cell in answer.json["cells"]] == [
            ("W32A32", 2, 5),
            ("W5A32", 2, 5),
        ]
        assert answer.json["cells"][0]["suite"]["title"] == "Another: title"

    def test_a_value_may_hold_an_equals_sign(self, qbench: Qbench, micro_suite: MicroSuite):
        assert qbench("plan", micro_suite(), "--set", "title=a=b").out.startswith("a=b: 3 cells")


class TestFailures:
    @pytest.fixture
    def path(self, micro_suite: MicroSuite) -> Path:
        return micro_suite(methods=["raises", "nan-output", "round"], bits=["W4A32"])

    def test_they_are_visible_everywhere(self, qbench: Qbench, path: Path, workplace: Path):
        answer = qbench("run", path)
        assert answer.code == 1
        assert "Traceback" not in answer.err
        assert "2 of 4 cells failed" in answer.err.splitlines()
        assert [line.split(": ")[1] for line in answer.err.splitlines() if line.startswith("failed: ")] == [
            "raises W4A32",
            "micro, nan-output W4A32, seed 0, images 0 to 11",
            "micro, nan-output W4A32, seed 0",
        ]
        assert {row["label"]: (row["status"], row["micro-distance"]) for row in rows(workplace)} | {
            "round": "",
            "full-precision": "",
        } == {
            "raises": ("failed", "failed"),
            "nan-output": ("failed", "failed"),
            "round": "",
            "full-precision": "",
        }
        text = (workplace / "results" / "micro" / "table.md").read_text(encoding="utf-8")
        assert "| raises | W4A32 | - | - | - | failed |" in text
        assert "no luck with &lt;script&gt;alert(1)&lt;/script&gt; \\| these weights" in text
        assert "<script" not in text
        assert "failed" in answer.out

    def test_json_has_the_reasons(self, qbench: Qbench, path: Path):
        answer = qbench("run", path, "--json")
        assert answer.code == 1
        found = {cell["label"]: (cell["status"], cell["reason"]) for cell in answer.json["cells"]}
        assert found["round"] == ("complete", None)
        assert found["raises"][0] == "failed"
        assert "RuntimeError: no luck" in found["raises"][1]

    def test_the_traceback_of_a_defect_is_kept_where_the_log_says(self, qbench: Qbench, path: Path):
        (line,) = [line for line in qbench("run", path).err.splitlines() if line.startswith("failed: raises")]
        kept = Path(line.rpartition("traceback in ")[2].rstrip(")"))
        assert "in quantize_weights" in kept.read_text()


def test_a_file_that_is_no_record_is_named(qbench: Qbench, finished_suite: Path, workplace: Path):
    (workplace / "results" / "micro" / "records" / "foreign.json").write_text("{")
    answer = qbench("run", finished_suite)
    assert answer.code == 0
    assert [line for line in answer.err.splitlines() if line.startswith("not in the table:") and "foreign" in line]


def test_a_record_that_is_no_cell_any_more_is_named(qbench: Qbench, finished_suite: Path, micro_suite: MicroSuite):
    answer = qbench("run", micro_suite(bits=["W4A8"]))
    assert answer.code == 0
    told = [line for line in answer.err.splitlines() if "no cell of this suite" in line]
    assert len(told) == 1
    assert "micro.round.W4A32.s0.json" in told[0]


def test_a_cell_of_other_settings_takes_the_place_of_the_old_one(
    qbench: Qbench, finished_suite: Path, micro_suite: MicroSuite, workplace: Path
):
    assert qbench("run", micro_suite(samples=5)).code == 0
    assert {row["samples"] for row in rows(workplace)} == {"5"}
    records = [json.loads(path.read_text()) for path in (workplace / "results" / "micro" / "records").iterdir()]
    assert {record["samples"] for record in records} == {5}


def test_the_batch_size_changes_no_digest_and_hardly_an_image(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path
) -> None:
    for size in ("5", "12"):
        suite = micro_suite(bits=["W4A32"])
        assert qbench("run", suite, "--batch-size", size, "--store", f"store-{size}").code == 0
    first, second = (
        {path.parent.name: np.load(path) for path in (workplace / f"store-{size}").rglob("sample/*/images.npy")}
        for size in ("5", "12")
    )
    assert first.keys() == second.keys() != set()
    for digest, images in first.items():
        assert np.abs(images.astype(int) - second[digest]).max() <= 1


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_batch_size_that_is_none_is_refused(qbench: Qbench, micro_suite: MicroSuite, size: str) -> None:
    answer = qbench("run", micro_suite(), "--batch-size", size)
    assert answer.code == 2
    assert "--batch-size" in answer.err
