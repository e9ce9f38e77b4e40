"""Every command besides ``run``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]


def damage(workplace: Path, kind: str) -> Path:
    """Flip a bit of a file of the first artefact of a kind."""
    folder = sorted((workplace / "store" / "artefacts" / kind).iterdir())[0]
    path = min(path for path in folder.iterdir() if path.name != "manifest.json")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


class TestPlan:
    def test_it_says_what_would_run(self, qbench: Qbench, micro_suite: MicroSuite):
        answer = qbench("plan", micro_suite(title="Some title"))
        assert answer.code == 0
        assert answer.out.startswith("Some title: 3 cells\n")
        assert answer.out.count(" to run\n") == 3
        assert "micro.full-precision.W32A32.s0" in answer.out

    def test_it_says_what_is_cached(self, qbench: Qbench, finished_suite: Path, micro_suite: MicroSuite):
        assert qbench("plan", finished_suite).out.count(" cached\n") == 3
        more = qbench("plan", micro_suite(bits=["W4A32", "W4A8", "W5A32"])).out
        assert more.count(" cached\n") == 3
        assert more.count(" to run\n") == 1

    def test_json_counts_stages_by_kind(self, qbench: Qbench, finished_suite: Path, micro_suite: MicroSuite):
        plan = qbench("plan", micro_suite(bits=["W4A32", "W4A8", "W5A32"]), "--json").json
        assert [cell["cell"] for cell in plan["cells"]] == [
            f"micro.{name}.s0" for name in ("full-precision.W32A32", "round.W4A32", "round.W4A8", "round.W5A32")
        ]
        assert {kind: counts["to_compute"] for kind, counts in plan["stages"].items()} == {
            "profile": 1, "sample": 1, "features": 1, "reference": 0, "score": 2, "weights": 1, "activations": 0,
            "trajectory": 0, "curve": 1,
        }  # fmt: skip
        assert plan["stages"]["weights"]["total"] == 2
        assert plan["estimate"]["seconds"] >= 0
        assert plan["estimate"]["peak_memory_mb"] > 0

    def test_it_says_for_how_many_processes_it_reckons(
        self, qbench: Qbench, finished_suite: Path, micro_suite: MicroSuite
    ):
        more = micro_suite(seeds=[0, 1, 2, 3])
        alone, shared = (qbench("plan", more, *words) for words in ([], ["--processes", 2]))
        assert " in one process, at most " in alone.out
        assert " in 2 processes, at most " in shared.out
        one, two = (qbench("plan", more, "--json", *words).json["estimate"] for words in ([], ["--processes", 2]))
        assert one["seconds"] == pytest.approx(2 * two["seconds"])
        assert (one["processes"], two["processes"]) == (1, 2)

    def test_what_is_known_is_said_beside_what_is_not(
        self, qbench: Qbench, finished_suite: Path, micro_suite: MicroSuite
    ):
        line = qbench("plan", micro_suite(methods=["round", "other-round"])).out
        assert "more than " in line
        assert "of some, nothing of the kind was computed in this store before (activations, weights)" in line
        assert "no estimate: " in qbench("plan", finished_suite, "--store", "empty").out

    def test_it_says_how_much_memory_calibration_needs(
        self, qbench: Qbench, micro_suite: MicroSuite, finished_suite: Path
    ):
        assert "calibration" not in qbench("plan", finished_suite).out
        last = qbench("plan", "smoke").out.splitlines()[-1]
        assert last.startswith("tiny-ddim: calibration needs about ")
        assert " MB on the device (linear W4A8, activations: model 13, a batch of 80 observed " in last
        assert last.endswith(" GB in all without an accelerator")
        memory = qbench("plan", micro_suite(bits=["W5A32"]), "--json").json["calibration_memory"]
        assert list(memory) == ["micro"]
        heaviest = memory["micro"]["heaviest"]
        assert (heaviest["kind"], heaviest["title"], heaviest["data"]) == ("weights", "round W5A32", 0)
        assert heaviest["total"] == heaviest["model"] + heaviest["work"]

    def test_it_says_why_the_memory_is_not_known(
        self, qbench: Qbench, micro_suite: MicroSuite, monkeypatch: pytest.MonkeyPatch
    ):
        def skeleton(self: Any) -> None:
            raise RuntimeError("no shapes")

        monkeypatch.setattr("qbench.workload.Workload.skeleton", skeleton)
        reason = "the workload 'micro', run without values, raises RuntimeError: no shapes"
        answer = qbench("plan", micro_suite())
        assert answer.code == 0
        assert answer.out.endswith(f"\nmicro: how much memory calibration needs is not known: {reason}\n")
        assert qbench("plan", micro_suite(), "--json").json["calibration_memory"] == {"micro": {"reason": reason}}

    def test_it_computes_nothing(self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
        qbench("plan", micro_suite())
        assert not list((workplace / "store").rglob("manifest.json"))
        assert not (workplace / "results").exists()


class TestCheck:
    def test_0_says_complete(self, qbench: Qbench, finished_suite: Path):
        answer = qbench("check", finished_suite)
        assert (answer.code, answer.out) == (0, "3 complete, 0 failed, 0 missing\n")

    def test_3_says_that_something_is_missing(self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
        path = micro_suite()
        assert qbench("check", path).code == 3
        qbench("run", path, "--only", "bits=W4A32")
        answer = qbench("check", path)
        assert answer.code == 3
        assert answer.out.splitlines() == [
            "micro.round.W4A8.s0: missing (no record)",
            "2 complete, 0 failed, 1 missing",
        ]
        assert qbench("check", path, "--only", "bits=W4A32").code == 0

    def test_1_says_that_something_failed(self, qbench: Qbench, micro_suite: MicroSuite):
        path = micro_suite(methods=["raises", "round"], bits=["W4A32"])
        qbench("run", path)
        answer = qbench("check", path)
        assert answer.code == 1
        assert "micro.raises.W4A32.s0: failed (weights: RuntimeError" in answer.out
        assert "2 complete, 1 failed, 0 missing" in answer.out

    @pytest.mark.parametrize(
        "changes",
        [{"samples": 13}, {"steps": 5}, {"metrics": ["micro-distance"]}, {"boundary_bits": 8}],
        ids=["samples", "steps", "metrics", "boundary bits"],
    )
    def test_results_of_other_settings_do_not_count(
        self, qbench: Qbench, finished_suite: Path, micro_suite: MicroSuite, changes: dict[str, Any]
    ):
        answer = qbench("check", micro_suite(**changes))
        assert answer.code == 3
        assert "other settings" in answer.out

    def test_a_result_from_before_there_were_curves_does_not_count(
        self, qbench: Qbench, finished_suite: Path, workplace: Path
    ):
        path = workplace / "results" / "micro" / "records" / "micro.round.W4A8.s0.json"
        raw = json.loads(path.read_text())
        del raw["results"]["curve"], raw["curve"]
        path.write_text(json.dumps(raw))
        answer = qbench("check", finished_suite)
        assert answer.code == 3
        assert "micro.round.W4A8.s0: missing (the record is of other settings)" in answer.out

    def test_an_altered_record_does_not_count(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        path = workplace / "results" / "micro" / "records" / "micro.round.W4A8.s0.json"
        path.write_text(path.read_text().replace('"gain": 1.0', '"gain": 1.5'))
        answer = qbench("check", finished_suite)
        assert answer.code == 3
        assert "altered" in answer.out

    def test_json_has_every_cell(self, qbench: Qbench, finished_suite: Path):
        answer = qbench("check", finished_suite, "--json")
        assert (answer.json["complete"], answer.json["failed"], answer.json["missing"]) == (3, 0, 0)
        assert [cell["state"] for cell in answer.json["cells"]] == ["complete"] * 3

    def test_it_touches_neither_store_nor_results(self, qbench: Qbench, micro_suite: MicroSuite, workplace: Path):
        qbench("check", micro_suite())
        assert [path.name for path in workplace.iterdir()] == ["micro.yaml"]


class TestLeaderboard:
    def test_it_makes_the_tables_that_run_made(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        folder = workplace / "results" / "micro"
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        answer = qbench("leaderboard")
        assert (answer.code, answer.out, answer.err) == (0, "results/README.md: micro\n", "")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_a_problem_is_named_and_makes_the_exit_code_1(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        (workplace / "results" / "micro" / "records" / "stranger.json").write_text("{}")
        answer = qbench("leaderboard", "results")
        assert answer.code == 1
        assert len(answer.err.splitlines()) == 1
        assert "stranger.json" in answer.err
        assert "| round | W4A8 |" in (workplace / "results" / "micro" / "table.md").read_text(encoding="utf-8")

    def test_json_has_suites_and_problems(self, qbench: Qbench, finished_suite: Path):
        assert qbench("leaderboard", "--json").json == {"suites": ["micro"], "problems": []}

    def test_a_folder_of_another_name(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        shutil.move(workplace / "results", workplace / "kept")
        assert qbench("leaderboard", "kept").code == 0
        assert (workplace / "kept" / "README.md").exists()


class TestCatalogues:
    def test_list_has_every_name_with_its_package(self, qbench: Qbench, fake_plugins: Path):
        lines = qbench("methods", "list").out.splitlines()
        names = [line.split()[0] for line in lines]
        assert names == sorted(names)
        assert {"linear", "round", "broken-import"} <= set(names)
        assert next(line for line in lines if line.startswith("round ")).split() == ["round", "microplugins", "1.0"]

    @pytest.mark.parametrize(("kind", "name"), [("methods", "round"), ("workloads", "micro"), ("metrics", "micro-nan")])
    def test_list_as_json(self, qbench: Qbench, fake_plugins: Path, kind: str, name: str):
        entries = {entry["name"]: entry for entry in qbench(kind, "list", "--json").json}
        assert entries[name]["package"] == "microplugins"
        assert entries[name]["version"] == "1.0"
        assert entries[name]["target"].startswith("micro_plugins:")

    def test_list_shows_a_name_that_two_packages_offer(self, qbench: Qbench, fake_plugins: Path, install: Any):
        install("rival", "[qbench.methods]\nround = rival:Round\n", {"rival.py": ""})
        lines = [line for line in qbench("methods", "list").out.splitlines() if line.startswith("round ")]
        assert len(lines) == 2
        assert all("offered twice" in line for line in lines)

    def test_two_packages_that_offer_one_name_stop_what_uses_it_alone(
        self, qbench: Qbench, micro_suite: MicroSuite, install: Any
    ):
        install("rival", "[qbench.methods]\nround = rival:Round\n", {"rival.py": ""})
        answer = qbench("plan", micro_suite())
        assert answer.code == 1
        assert "microplugins (micro_plugins:Round)" in answer.err
        assert "rival (rival:Round)" in answer.err
        assert qbench("plan", micro_suite(methods=["linear"])).code == 0

    def test_show_describes_a_method_and_its_settings(self, qbench: Qbench, fake_plugins: Path):
        out = qbench("methods", "show", "round").out
        assert "round\n  title: rounding, for tests\n" in out
        assert "  preset tight: share 0.75\n  preset few: calibration.per_step 4\n" in out
        assert "share (float, default 1.0): share of the range that is kept" in out
        assert "calibration.steps (int, default 2): " in out

    def test_show_says_what_a_method_is_and_how_it_differs_from_its_authors(self, qbench: Qbench):
        out = qbench("methods", "show", "qdiffusion").out
        assert "\n\n  Block reconstruction as in BRECQ, with the paper's two ideas.\n\n" in out
        assert "  preset strict: the defaults\n" in out

    def test_show_describes_every_kind_of_calibration(self, qbench: Qbench):
        out = qbench("methods", "show", "linear").out
        assert "calibration.kind (Literal['uniform-steps', 'single-step', 'normal-steps', " in out
        assert ", default uniform-steps): the kind of request" in out
        assert "calibration.per_step (int, default 256): with uniform-steps: " in out
        assert "calibration.mean (float, default 0.4): with normal-steps: " in out
        assert "calibration.count (int, default 512): with single-step, gaussian-inputs, noised-images: " in out

    def test_show_describes_a_workload_and_a_metric(self, qbench: Qbench, fake_plugins: Path):
        assert "sampler.eta (float, default 0.0): " in qbench("workloads", "show", "micro").out
        out = qbench("metrics", "show", "micro-distance").out
        assert "direction: lower" in out
        assert "protocol: 8x8 images, means of the quarters" in out
        assert "settings: none" in out

    def test_show_as_json(self, qbench: Qbench, fake_plugins: Path):
        shown = qbench("methods", "show", "linear", "--json").json
        assert shown["name"] == "linear"
        assert shown["package"].startswith("qbench ")
        assert {row["name"] for row in shown["settings"]} >= {"calibration.steps", "calibration.per_step"}
        assert all(row["description"] and row["type"] for row in shown["settings"] if row["name"] != "calibration.kind")

    def test_a_plugin_that_cannot_be_imported_keeps_its_place_and_says_why(self, qbench: Qbench, fake_plugins: Path):
        assert "broken-import" in qbench("methods", "list").out
        answer = qbench("methods", "show", "broken-import")
        assert answer.code == 1
        assert answer.err.count("\n") == 1
        assert "broken-import" in answer.err
        assert "microplugins" in answer.err
        assert "OSError: libmicro.so.1" in answer.err

    def test_show_suggests_a_name(self, qbench: Qbench, fake_plugins: Path):
        answer = qbench("methods", "show", "ruond")
        assert answer.code == 1
        assert "did you mean 'round'?" in answer.err


class TestSuites:
    def test_list_has_the_installed_ones(self, qbench: Qbench):
        lines = qbench("suites", "list").out.splitlines()
        assert {"smoke", "quickstart"} <= {line.split()[0] for line in lines}
        assert {"smoke", "quickstart"} <= set(qbench("suites", "list", "--json").json)

    def test_show_has_cells_and_metrics(self, qbench: Qbench, micro_suite: MicroSuite):
        out = qbench("suites", "show", micro_suite(title="Some title", boundary_bits=8)).out
        assert out.startswith("micro: Some title (")
        assert (
            "  micro.round.W4A8.s0: 12 samples, 4 steps, first and last layer 8 bits; micro-distance, mse-to-fp" in out
        )

    def test_show_as_json(self, qbench: Qbench, micro_suite: MicroSuite):
        shown = qbench("suites", "show", micro_suite(), "--json").json
        assert (shown["name"], len(shown["cells"])) == ("micro", 3)
        assert shown["cells"][1]["method"]["name"] == "round"


class TestStore:
    def test_ls_counts_by_kind(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        lines = qbench("store", "ls").out.splitlines()
        counts = {line.split()[0]: int(line.split()[1]) for line in lines[:-1]}
        assert counts == {
            "activations": 1, "curve": 2, "features": 3, "profile": 3, "reference": 1, "sample": 3, "score": 5,
            "trajectory": 1, "weights": 1,
        }  # fmt: skip
        assert lines[-1].startswith(f"{workplace / 'store'}: 20 artefacts, ")

    def test_ls_as_json(self, qbench: Qbench, finished_suite: Path):
        listed = qbench("store", "ls", "--json").json
        assert len(listed) == 20
        assert all(len(entry["digest"]) == 64 and entry["bytes"] > 0 and entry["age_days"] >= 0 for entry in listed)

    def test_verify_finds_nothing_wrong(self, qbench: Qbench, finished_suite: Path):
        answer = qbench("store", "verify")
        assert (answer.code, answer.out) == (0, "20 sound, 0 damaged\n")

    @pytest.mark.parametrize("kind", ["sample", "weights", "score"])
    def test_verify_sets_damage_aside_and_says_so(
        self, qbench: Qbench, finished_suite: Path, workplace: Path, kind: str
    ):
        path = damage(workplace, kind)
        answer = qbench("store", "verify")
        assert answer.code == 1
        assert answer.out.splitlines()[0].startswith(f"set aside: {path} ")
        assert answer.out.splitlines()[1] == "19 sound, 1 damaged"
        assert not path.exists()
        assert qbench("store", "verify").code == 0
        assert qbench("run", finished_suite).code == 0

    def test_verify_as_json(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        path = damage(workplace, "features")
        found = qbench("store", "verify", "--json").json
        assert found["sound"] == 19
        assert len(found["damaged"]) == 1
        assert str(path) in found["damaged"][0]

    def test_gc_removes_leftovers_and_no_artefact(self, qbench: Qbench, finished_suite: Path, workplace: Path):
        leftover = workplace / "store" / "pending" / ("0" * 64)
        leftover.mkdir()
        (leftover / "images.npy").write_bytes(bytes(1000))
        damage(workplace, "sample")
        qbench("store", "verify")
        freed = qbench("store", "gc", "--json").json["freed_bytes"]
        assert freed > 1000
        assert not list((workplace / "store" / "pending").iterdir())
        assert not list((workplace / "store" / "damaged").iterdir())
        assert len(qbench("store", "ls", "--json").json) == 19

    def test_gc_removes_what_is_old_if_asked(self, qbench: Qbench, finished_suite: Path):
        assert qbench("store", "gc", "--older-than", "1").code == 0
        assert len(qbench("store", "ls", "--json").json) == 20
        assert qbench("store", "gc", "--older-than", "0").code == 0
        assert qbench("store", "ls", "--json").json == []
        assert qbench("run", finished_suite).code == 0

    def test_gc_leaves_what_another_process_computes_now(
        self, qbench: Qbench, start: Any, micro_suite: MicroSuite, workplace: Path
    ):
        running = start("run", micro_suite(), pause="weights")
        running.reach_pause()
        assert qbench("store", "gc").code == 0
        assert len(list((workplace / "store" / "pending").iterdir())) == 1
        running.go_on()
        assert running.wait() == 0


class TestDoctor:
    def test_it_looks_at_everything_that_a_run_needs(self, qbench: Qbench, fake_plugins: Path, workplace: Path):
        answer = qbench("doctor")
        found = {line[6:].partition(": ")[0]: line[:4] for line in answer.out.splitlines()}
        for what in ("python", "torch", "qbench", "processor", "accelerators", "method linear", "workload tiny-ddim",
                     "metric mse-to-fp", "extractor fashion", "method round"):  # fmt: skip
            assert found[what] == "ok  ", what
        assert str(workplace / "store") in answer.out

    def test_a_plugin_that_cannot_be_imported_is_a_finding(self, qbench: Qbench, fake_plugins: Path):
        answer = qbench("doctor", "--json")
        assert answer.code == 1
        (finding,) = [each for each in answer.json if each["what"] == "method broken-import"]
        assert not finding["ok"]
        assert "OSError: libmicro.so.1" in finding["found"]

    def test_a_store_that_cannot_be_written_is_a_finding(self, qbench: Qbench, workplace: Path):
        (workplace / "file").write_text("")
        answer = qbench("doctor", "--store", workplace / "file" / "store", "--json")
        assert answer.code == 1
        (finding,) = [each for each in answer.json if each["what"] == "store"]
        assert not finding["ok"]
        assert "Traceback" not in answer.err

    def test_all_is_well_on_this_machine(self, qbench: Qbench, monkeypatch: pytest.MonkeyPatch):
        from qbench import diagnosis

        monkeypatch.setattr(diagnosis, "LOW_SPACE_BYTES", 0)
        answer = qbench("doctor")
        assert answer.code == 0, answer.out


def test_version(qbench: Qbench):
    from importlib.metadata import version

    answer = qbench("--version")
    assert (answer.code, answer.out) == (0, f"{version('qbench')}\n")


def test_help_names_every_command(qbench: Qbench):
    answer = qbench("--help")
    assert answer.code == 0
    for command in (
        "run",
        "plan",
        "check",
        "diff",
        "leaderboard",
        "methods",
        "workloads",
        "metrics",
        "suites",
        "store",
        "doctor",
    ):
        assert f" {command} " in answer.out
        assert qbench(command, "--help").code == 0


def test_json_is_json_for_every_command_that_offers_it(qbench: Qbench, finished_suite: Path):
    for words in (
        ("plan", finished_suite), ("check", finished_suite), ("run", finished_suite), ("leaderboard",), ("doctor",),
        ("methods", "list"), ("workloads", "list"), ("metrics", "list"), ("suites", "list"), ("store", "ls"),
        ("suites", "show", "smoke"), ("store", "gc"), ("store", "verify"),
    ):  # fmt: skip
        answer = qbench(*words, "--json")
        assert json.loads(answer.out) is not None, words
