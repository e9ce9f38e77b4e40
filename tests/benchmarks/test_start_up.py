"""What a command takes before it does anything, over a Python that does nothing."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 15


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules are compiled once, as those of an installed program are; some machines are told not to keep them."""
    with pytest.MonkeyPatch.context() as context:
        context.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        context.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("compiled")))
        yield


def seconds(arguments: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


def least(first: Sequence[str], second: Sequence[str], rounds: int) -> tuple[float, float]:
    """The least of several turns is what the machine can do; whatever else it does makes the others longer."""
    pairs = [(seconds(first), seconds(second)) for _ in range(rounds)]
    return min(ours for ours, _ in pairs), min(bare for _, bare in pairs)


@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.35), (["methods", "list"], 0.6)], ids=["help", "list"])
def test_a_command_over_a_bare_python(
    benchmark: BenchmarkFixture, judged: Callable[..., bool], words: list[str], limit: float
) -> None:
    ours, bare = least(["-m", "qbench", *words], ["-c", "pass"], 1 if benchmark.disabled else ROUNDS)
    assert judged(ours - bare, limit, f"`qbench {' '.join(words)}` beyond `python -c pass`", unit="s")


@pytest.fixture
def finished(
    benchmark: BenchmarkFixture, micro_suite: Callable[..., Path], workplace: Path, uninterrupted: Path
) -> tuple[Path, int]:
    """A finished suite in the current folder, and how many cells it has: 192 of five figures where it is measured."""
    if benchmark.disabled:
        for name in ("store", "results"):
            shutil.copytree(uninterrupted / name, workplace / name)
        return micro_suite(), 3
    methods = [{"name": "round", "as": f"round-{n}", "settings": {"share": 1 - n / 10}} for n in range(7)]
    bits = ["W8A32", "W4A32", "W3A32", "W8A8", "W4A8", "W3A8", "W4A6", "W2A8", "W2A32"]
    metrics = ["micro-distance", "micro-contrast", "mse-to-fp", "psnr-to-fp"]
    suite = micro_suite(methods=methods, bits=bits, seeds=[0, 1, 2], metrics=metrics)
    subprocess.run([sys.executable, "-m", "qbench", "run", suite], check=True, capture_output=True, env=os.environ)
    return suite, 192


def test_a_finished_suite_again(
    benchmark: BenchmarkFixture, judged: Callable[..., bool], finished: tuple[Path, int], workplace: Path
) -> None:
    suite, cells = finished
    before = {path: path.read_bytes() for path in (workplace / "results").rglob("*") if path.is_file()}
    command = ["-m", "qbench", "run", str(suite)]
    ours, _ = least(command, ["-c", "pass"], 1 if benchmark.disabled else ROUNDS)
    assert {path: path.read_bytes() for path in (workplace / "results").rglob("*") if path.is_file()} == before
    assert len(list((workplace / "results" / "micro" / "records").iterdir())) == cells
    assert judged(ours, 2.0, f"`qbench run` of a finished suite of {cells} cells", unit="s")
