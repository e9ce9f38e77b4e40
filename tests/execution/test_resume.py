"""Runs that are stopped, repeated, damaged or doubled end where an uninterrupted one does."""

import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qbench.plan import make_plan
from qbench.suite import load_suite

TABLES = ("table.csv", "table.md", "curves.csv", "protocols.json", "media/curves.micro.svg")
STAGES = 20
"""Of the micro suite: full precision, W4A32 and W4A8."""
BEHIND = {
    "profile": [],
    "curve": [],
    "score": [],
    "features": ["score"],
    "reference": ["score"],
    "sample": ["features", "score"],
    "activations": ["profile", "curve", "sample", "features", "score"],
    "weights": ["activations", "profile", "curve", "sample", "features", "score"],
    "trajectory": ["activations", "profile", "curve", "sample", "features", "score"],
}
"""Which kinds of stages need a kind, directly or not."""


@pytest.fixture
def suite(micro_suite: Callable[..., Path]) -> Path:
    return micro_suite()


@pytest.fixture
def store(workplace: Path) -> Path:
    return workplace / "store"


@pytest.fixture(scope="session")
def expected(uninterrupted: Path) -> dict[str, bytes]:
    """The tables of a run that nothing interrupted."""
    return tables(uninterrupted / "results")


def tables(results: Path) -> dict[str, bytes]:
    return {name: (results / "micro" / name).read_bytes() for name in TABLES}


def finished(log: str) -> list[str]:
    """Return the stages that a log says were computed, without their numbers and times."""
    return re.findall(r"^\[\d+/\d+\] (.*): \d+\.\d s", log, flags=re.MULTILINE)


def artefacts(store: Path, kind: str) -> list[Path]:
    return sorted((store / "artefacts" / kind).iterdir())


def content(artefact: Path) -> Path:
    """Return the first file that an artefact is about."""
    return min(path for path in artefact.iterdir() if path.name != "manifest.json")


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def assert_sound(qbench: Callable[..., Any], store: Path) -> None:
    """Nothing in the store is half-valid."""
    verified = qbench("store", "verify", "--json")
    assert verified.code == 0, verified.out
    assert verified.json["damaged"] == []


class TestAgain:
    def test_nothing_is_computed_twice_and_nothing_is_written(
        self, qbench: Callable[..., Any], suite: Path, workplace: Path, expected: dict[str, bytes]
    ):
        first = qbench("run", suite)
        assert len(finished(first.err)) == STAGES
        written = {path: path.stat().st_mtime_ns for path in (workplace / "results").rglob("*.*") if path.is_file()}
        again = qbench("run", suite)
        assert (again.code, again.out) == (first.code, first.out) == (0, first.out)
        assert finished(again.err) == []
        assert tables(workplace / "results") == expected
        unchanged = {path: mtime for path, mtime in written.items() if path.suffix != ".png"}
        assert {path: path.stat().st_mtime_ns for path in unchanged} == unchanged

    def test_lost_results_come_back_from_the_store(
        self, qbench: Callable[..., Any], finished_suite: Path, workplace: Path, expected: dict[str, bytes]
    ):
        shutil.rmtree(workplace / "results")
        again = qbench("run", finished_suite)
        assert finished(again.err) == []
        assert tables(workplace / "results") == expected

    def test_a_figure_that_somebody_altered_is_put_right(
        self, qbench: Callable[..., Any], finished_suite: Path, workplace: Path, expected: dict[str, bytes]
    ):
        path = workplace / "results" / "micro" / "records" / "micro.round.W4A8.s0.json"
        path.write_text(re.sub(r'"value": [^,]*', '"value": 1e-9', path.read_text()))
        qbench("run", finished_suite)
        assert tables(workplace / "results") == expected

    def test_a_metric_that_is_added_samples_nothing_again(
        self, qbench: Callable[..., Any], finished_suite: Path, micro_suite
    ):
        again = qbench("run", micro_suite(metrics=["micro-distance", "mse-to-fp", "micro-contrast"]))
        assert {line.partition(":")[0] for line in finished(again.err)} == {"score"}

    def test_pictures_outlive_the_images_they_were_made_from(
        self, qbench: Callable[..., Any], finished_suite: Path, workplace: Path, store: Path
    ):
        """`qbench store gc --older-than` takes images, and figures need them no more."""
        picture = workplace / "results" / "micro" / "media" / "micro.s0.png"
        before = picture.read_bytes()
        shutil.rmtree(artefacts(store, "sample")[0])
        assert qbench("run", finished_suite).code == 0
        assert picture.read_bytes() == before


class TestKill:
    @pytest.mark.parametrize(
        "place", ["denoiser-1", "denoiser-12", "features", "score", "weights", "denoiser-8", "activations"]
    )
    def test_in_the_middle_of_a_stage(
        self,
        place: str,
        start: Callable[..., Any],
        qbench: Callable[..., Any],
        suite: Path,
        workplace: Path,
        store: Path,
        expected: dict[str, bytes],
    ):
        running = start("run", suite, pause=place)
        running.reach_pause()
        running.kill()
        assert len(list((store / "pending").iterdir())) == 1
        before = finished(running.err)
        assert_sound(qbench, store)
        assert qbench("check", suite).code == 3
        again = qbench("run", suite)
        assert again.code == 0, again.err
        assert tables(workplace / "results") == expected
        assert not set(before) & set(finished(again.err))
        assert len(before) + len(finished(again.err)) == STAGES
        assert list((store / "pending").iterdir()) == []
        assert_sound(qbench, store)

    def test_at_any_moment_again_and_again(
        self,
        start: Callable[..., Any],
        qbench: Callable[..., Any],
        suite: Path,
        workplace: Path,
        store: Path,
        expected: dict[str, bytes],
    ):
        computed: list[str] = []
        for attempt in range(3):
            running = start("run", suite)
            running.reach_line("stages to compute")
            time.sleep(0.03 * attempt)
            running.kill()
            computed += finished(running.err)
            assert_sound(qbench, store)
        computed += finished(qbench("run", suite).err)
        assert tables(workplace / "results") == expected
        # Between the rename and the line that tells of it lies a moment in which a stage is finished and untold.
        assert len(computed) == len(set(computed))
        assert STAGES - 3 <= len(computed) <= STAGES

    def test_what_a_killed_process_half_wrote_is_not_taken_for_an_artefact(
        self, qbench: Callable[..., Any], suite: Path, workplace: Path, store: Path, expected: dict[str, bytes]
    ):
        for stage in make_plan(load_suite(suite)).stages.values():
            leftover = store / "pending" / stage.digest
            leftover.mkdir(parents=True)
            for name in ("images.npy", "weights.safetensors", "score.json", "manifest.json", "surprise"):
                (leftover / name).write_bytes(b"half")
        assert qbench("run", suite).code == 0
        assert tables(workplace / "results") == expected
        assert not list((store / "artefacts").rglob("surprise"))
        assert_sound(qbench, store)


class TestInterrupt:
    @pytest.mark.parametrize("place", ["weights", "denoiser-12"])
    def test_ctrl_c_says_one_sentence_and_leaves_all_that_is_finished(
        self,
        place: str,
        start: Callable[..., Any],
        qbench: Callable[..., Any],
        suite: Path,
        workplace: Path,
        store: Path,
        expected: dict[str, bytes],
    ):
        running = start("run", suite, pause=place)
        running.reach_pause()
        assert running.interrupt() == 130
        before = finished(running.err)
        told = [line for line in running.err.splitlines() if line and not line.startswith("[")][1:]
        assert len(told) == 1, running.err
        assert "run the same command to go on" in told[0]
        assert list((store / "pending").iterdir()) == []
        assert_sound(qbench, store)
        again = qbench("run", suite)
        assert not set(before) & set(finished(again.err))
        assert tables(workplace / "results") == expected


class TestTwoProcesses:
    def test_at_once_they_share_the_work_and_agree(
        self, start: Callable[..., Any], suite: Path, workplace: Path, expected: dict[str, bytes]
    ):
        both = [start("run", suite, "--results", name) for name in ("first", "second")]
        assert [running.wait() for running in both] == [0, 0], both[0].err + both[1].err
        computed = [line for running in both for line in finished(running.err)]
        assert len(computed) == len(set(computed)) == STAGES
        for name in ("first", "second"):
            assert tables(workplace / name) == expected

    def test_in_one_results_folder_too(
        self, start: Callable[..., Any], suite: Path, workplace: Path, expected: dict[str, bytes]
    ):
        both = [start("run", suite) for _ in range(2)]
        assert [running.wait() for running in both] == [0, 0], both[0].err + both[1].err
        assert tables(workplace / "results") == expected
        assert not [path.name for path in (workplace / "results").rglob(".*")]

    def test_one_waits_for_a_stage_that_the_other_computes(
        self, start: Callable[..., Any], suite: Path, workplace: Path, expected: dict[str, bytes]
    ):
        slow = start("run", suite, "--results", "slow", pause="weights")
        slow.reach_pause()
        quick = start("run", suite, "--results", "quick")
        quick.reach_line("waiting for another process that computes weights")
        slow.go_on()
        assert [slow.wait(), quick.wait()] == [0, 0]
        computed = finished(slow.err) + finished(quick.err)
        assert len(computed) == len(set(computed)) == STAGES
        assert tables(workplace / "slow") == tables(workplace / "quick") == expected

    def test_one_takes_over_from_another_that_is_killed(
        self, start: Callable[..., Any], suite: Path, workplace: Path, expected: dict[str, bytes]
    ):
        doomed = start("run", suite, "--results", "doomed", pause="weights")
        doomed.reach_pause()
        heir = start("run", suite, "--results", "heir")
        heir.reach_line("waiting for another process")
        doomed.kill()
        assert heir.wait() == 0
        assert tables(workplace / "heir") == expected

    def test_the_picture_of_one_does_not_get_in_the_way_of_the_other(
        self, qbench: Callable[..., Any], suite: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Another process writes the same picture between this one's saving and its renaming."""
        from PIL import Image

        save = Image.Image.save
        own = os.getpid()

        def save_and_be_overtaken(self: Image.Image, *arguments: Any, **keywords: Any) -> None:
            save(self, *arguments, **keywords)
            monkeypatch.setattr(Image.Image, "save", save)
            monkeypatch.setattr(os, "getpid", lambda: own + 1)
            assert qbench("run", suite).code == 0
            monkeypatch.setattr(os, "getpid", lambda: own)

        monkeypatch.setattr(Image.Image, "save", save_and_be_overtaken)
        answer = qbench("run", suite)
        assert answer.code == 0, answer.err
        names = sorted(path.name for path in (workplace / "results" / "micro" / "media").iterdir())
        assert names == ["curves.micro.svg", "micro.s0.png", "pareto.micro.svg", "strips"]


class TestDamage:
    @pytest.mark.parametrize("kind", BEHIND)
    def test_what_is_needed_is_set_aside_told_and_computed_again(
        self,
        kind: str,
        qbench: Callable[..., Any],
        finished_suite: Path,
        workplace: Path,
        store: Path,
        expected: dict[str, bytes],
    ):
        damaged = artefacts(store, kind)
        for artefact in damaged:
            damage(content(artefact))
        for behind in BEHIND[kind]:
            shutil.rmtree(store / "artefacts" / behind)
        again = qbench("run", finished_suite)
        assert again.code == 0, again.err
        told = [line for line in again.err.splitlines() if line.startswith("warning: ")]
        assert len(told) == len(damaged)
        assert all(any(str(content(artefact)) in line for line in told) for artefact in damaged)
        assert len(list((store / "damaged").iterdir())) == len(damaged)
        assert tables(workplace / "results") == expected
        assert_sound(qbench, store)

    @pytest.mark.parametrize("kind", BEHIND)
    def test_what_is_not_needed_stops_nobody(
        self,
        kind: str,
        qbench: Callable[..., Any],
        finished_suite: Path,
        workplace: Path,
        store: Path,
        expected: dict[str, bytes],
    ):
        for artefact in artefacts(store, kind):
            damage(content(artefact))
        again = qbench("run", finished_suite)
        assert again.code == 0, again.err
        assert tables(workplace / "results") == expected

    @pytest.mark.parametrize("wrong", ["missing", "empty", "cut short", "another's"])
    @pytest.mark.parametrize("kind", ["score", "profile", "curve", "weights", "sample", "reference"])
    def test_a_manifest_that_is_no_manifest(
        self,
        kind: str,
        wrong: str,
        qbench: Callable[..., Any],
        finished_suite: Path,
        workplace: Path,
        store: Path,
        expected: dict[str, bytes],
    ):
        manifest = artefacts(store, kind)[0] / "manifest.json"
        text = manifest.read_text()
        if wrong == "missing":
            manifest.unlink()
        else:
            other = (artefacts(store, "features")[0] / "manifest.json").read_text()
            manifest.write_text({"empty": "", "cut short": text[: len(text) // 2], "another's": other}[wrong])
        again = qbench("run", finished_suite)
        assert again.code == 0, again.err
        assert tables(workplace / "results") == expected

    @pytest.mark.parametrize("kind", ["score", "weights"])
    def test_a_file_that_is_gone(
        self,
        kind: str,
        qbench: Callable[..., Any],
        finished_suite: Path,
        workplace: Path,
        store: Path,
        expected: dict[str, bytes],
    ):
        for artefact in artefacts(store, kind):
            content(artefact).unlink()
        for behind in BEHIND[kind]:
            shutil.rmtree(store / "artefacts" / behind)
        again = qbench("run", finished_suite)
        assert again.code == 0, again.err
        assert "warning: " in again.err
        assert tables(workplace / "results") == expected

    def test_an_image_that_is_damaged_leaves_the_picture_as_it_was(
        self, qbench: Callable[..., Any], finished_suite: Path, workplace: Path, store: Path
    ):
        picture = workplace / "results" / "micro" / "media" / "micro.s0.png"
        before = picture.read_bytes()
        damage(content(artefacts(store, "sample")[0]))
        qbench("run", finished_suite)
        assert picture.read_bytes() == before


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """Let the system refuse to write files beyond a size, and say that no room is left.

    Libraries then tell of it in their own words, as they do on a disk that is really full.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    usage = shutil.disk_usage("/")._replace(free=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        with pytest.MonkeyPatch.context() as context:
            context.setattr(shutil, "disk_usage", lambda _: usage)
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFullDisk:
    @pytest.mark.parametrize(
        ("what", "changes"),
        [
            ("sample", {"samples": 240}),
            ("trajectory", {"methods": [{"name": "round", "settings": {"calibration": {"per_step": 60}}}]}),
        ],
    )
    def test_one_sentence_says_so_and_the_run_goes_on_when_there_is_room(
        self, what: str, changes: dict[str, Any], qbench: Callable[..., Any], micro_suite, workplace: Path, store: Path
    ):
        path = micro_suite(**changes)
        assert qbench("run", path, "--store", "roomy", "--results", "roomy-results").code == 0
        with full_disk(12_000):
            full = qbench("run", path)
        assert full.code == 1
        told = [line for line in full.err.splitlines() if not line.startswith("[")][1:]
        assert len(told) == 1, full.err
        assert "full" in told[0]
        assert str(store) in told[0]
        assert_sound(qbench, store)
        assert list((store / "pending").iterdir()) == []
        again = qbench("run", path)
        assert again.code == 0
        assert not set(finished(full.err)) & set(finished(again.err))
        assert tables(workplace / "results") == tables(workplace / "roomy-results")

    @pytest.mark.parametrize("name", ["score.json", "profile.json", "curve.json", "manifest.json"])
    def test_whatever_file_comes_too_late(
        self,
        name: str,
        qbench: Callable[..., Any],
        suite: Path,
        workplace: Path,
        store: Path,
        monkeypatch: pytest.MonkeyPatch,
        expected: dict[str, bytes],
    ):
        write_text = Path.write_text

        def write(self: Path, *arguments: Any, **keywords: Any) -> int:
            if self.name == name:
                raise OSError(28, "No space left on device")
            return write_text(self, *arguments, **keywords)

        with monkeypatch.context() as context:
            context.setattr(Path, "write_text", write)
            full = qbench("run", suite)
        assert full.code == 1
        assert full.err.splitlines()[-1].startswith("qbench: the disk that holds ")
        assert "Traceback" not in full.err
        assert qbench("run", suite).code == 0
        assert tables(workplace / "results") == expected

    def test_results_that_cannot_be_written_are_told_and_the_work_is_kept(
        self, qbench: Callable[..., Any], suite: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
    ):
        replace = Path.replace

        def fail(self: Path, target: Path) -> Path:
            if target.name == "table.csv":
                raise OSError(28, "No space left on device")
            return replace(self, target)

        with monkeypatch.context() as context:
            context.setattr(Path, "replace", fail)
            full = qbench("run", suite)
        assert full.code == 1
        assert "table.csv cannot be written (No space left on device)" in full.err.splitlines()[-1]
        assert not list((workplace / "results" / "micro").glob(".*"))
        again = qbench("run", suite)
        assert again.code == 0
        assert finished(again.err) == []
