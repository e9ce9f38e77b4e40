"""A disk that is full in any stage, and places that cannot be written: told in a sentence, and nothing is lost."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REFUSED = "a full disk in a stage of the small suite, as errors of Python's files"
FULL = "a full disk in a stage of the small suite, on a tmpfs"
UNWRITABLE = "a store or results folder that cannot be written"
SIZE = "64m"


@pytest.fixture
def small(laboratory: Callable[..., Any], every_kind: Path) -> Any:
    return laboratory(every_kind)


def mounted(kind: str, *arguments: object) -> bool:
    """Mount a file system; return whether this machine lets us."""
    command = ["mount", *map(str, arguments)] if kind == "bind" else ["mount", "-t", kind, *map(str, arguments)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    """Have a small file system of its own in a folder; the test is skipped where that is not permitted."""
    folder.mkdir()
    if not mounted("tmpfs", "-o", f"size={SIZE}", "tmpfs", folder):
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def assert_told(ended: Any, folder: Path) -> None:
    """The last line says which disk is full and what to do, and is the only one that is not about progress."""
    assert ended.code == 1, (ended.code, ended.err)
    told = [line for line in ended.err.splitlines() if not line.startswith("[")][1:]
    assert len(told) == 1, ended.err
    assert told[0].startswith(f"qbench: the disk that holds {folder / 'store'} is full: make room (`qbench store gc`")
    assert told[0].endswith("what is finished is kept")


def goes_on(small: Any, full: Any, folder: Path) -> None:
    """After room was made, what was finished before is not computed again."""
    small.assert_sound(folder)
    again = small.run_here(folder)
    small.assert_finished(again, folder)
    assert set(full.computed).isdisjoint(again.computed)
    assert len(full.computed) + len(again.computed) == len(small.stages)


def refused_in(small: Any, folder: Path, kind: str) -> None:
    from faulty_process import Fault

    stage = small.of_kind(kind)[-1]
    place = f"pending/{stage.digest}"
    fault = Fault(str(folder), refuse=errno.ENOSPC, begin=place, within=place + "/")
    full = small.run(folder, fault=fault).wait()
    assert_told(full, folder)
    goes_on(small, full, folder)


def full_in(small: Any, folder: Path, kind: str) -> None:
    from faulty_process import Fault

    stage = small.of_kind(kind)[-1]
    ballast = folder / "ballast"
    full = small.run(folder, fault=Fault(str(folder), begin=f"pending/{stage.digest}", ballast=str(ballast))).wait()
    assert ballast.stat().st_size > 1_000_000
    ballast.unlink()
    assert_told(full, folder)
    goes_on(small, full, folder)


def test_errors_in_some_stages(small: Any, workplace: Path, tally: Any) -> None:
    for kind in ("trajectory", "features", "score"):
        with tally.of(REFUSED):
            refused_in(small, workplace / kind, kind)


@pytest.mark.slow
def test_errors_in_every_stage(small: Any, workplace: Path, tally: Any) -> None:
    for kind in small.kinds:
        with tally.of(REFUSED):
            refused_in(small, workplace / kind, kind)


@pytest.mark.slow
def test_a_small_disk_in_every_stage(small: Any, workplace: Path, tally: Any) -> None:
    """What libraries write counts too, and what is written through memory would end the process by a signal."""
    for kind in small.kinds:
        folder = workplace / kind
        with tmpfs(folder), tally.of(FULL):
            full_in(small, folder, kind)


def test_a_small_disk_while_features_are_written(small: Any, workplace: Path, tally: Any) -> None:
    folder = workplace / "features"
    with tmpfs(folder), tally.of(FULL):
        full_in(small, folder, "features")


class TestUnwritable:
    @pytest.fixture
    def small(self, laboratory: Callable[..., Any], micro_suite: Callable[..., Path]) -> Any:
        return laboratory(micro_suite(bits=["W4A32"], metrics=["mse-to-fp"]))

    @pytest.mark.parametrize("place", ["store", "results"])
    def test_it_is_told_before_any_work(self, place: str, small: Any, workplace: Path, tally: Any) -> None:
        """By the error that the system gives; whoever runs the tests may be allowed to write everywhere."""
        from faulty_process import Fault

        folder = workplace / "here"
        (folder / place).mkdir(parents=True)
        with tally.of(UNWRITABLE):
            ended = small.run(folder, fault=Fault(str(folder / place), refuse=errno.EROFS)).wait()
            self.assert_refused(ended, folder, place)

    @pytest.mark.parametrize("place", ["store", "results"])
    def test_on_a_file_system_that_is_read_only(self, place: str, small: Any, workplace: Path, tally: Any) -> None:
        folder = workplace / "here"
        target = folder / place
        target.mkdir(parents=True)
        if not mounted("bind", "--bind", target, target):
            pytest.skip("mounting is not permitted here")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True, capture_output=True)
            with tally.of(UNWRITABLE):
                self.assert_refused(small.run_here(folder), folder, place)
        finally:
            subprocess.run(["umount", "-l", str(target)], check=True, capture_output=True)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    @pytest.mark.parametrize("place", ["store", "results"])
    def test_without_permission(self, place: str, small: Any, workplace: Path, tally: Any) -> None:
        folder = workplace / "here"
        (folder / place).mkdir(parents=True)
        (folder / place).chmod(0o500)
        with tally.of(UNWRITABLE):
            self.assert_refused(small.run_here(folder), folder, place, os.strerror(errno.EACCES))

    @staticmethod
    def assert_refused(ended: Any, folder: Path, place: str, reason: str = os.strerror(errno.EROFS)) -> None:
        assert ended.code == 1, ended.err
        (told,) = ended.err.splitlines()
        named = {"store": "store", "results": "results/micro"}[place]
        assert told.startswith("qbench: ")
        assert f"{named} cannot be written ({reason}): name another folder with --{place}" in told
        assert list(folder.rglob("*.json")) == []
