"""``qbench export`` as somebody types it."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Qbench = Callable[..., Any]
MICRO = "micro/micro.round.W4A8.s0"


def test_what_it_prints_loads_it(qbench: Qbench, workplace: Path, capsys: Any) -> None:
    smaller = ["--set", "samples=2", "--set", "steps=2", "--set", "bits=[W4A8]", "--set", "metrics=[mse-to-fp]"]
    assert qbench("run", "smoke", *smaller).code == 0
    answer = qbench("export", "smoke/tiny-ddim.linear.W4A8.s0", "--to", "my export")
    assert (answer.code, answer.err) == (0, "")
    told, *lines = answer.out.splitlines()
    assert told == "tiny-ddim.linear.W4A8.s0 is in my export: 0.87 MB of weights, 0.89 MB in all"
    assert lines == ["import qbench", "pipeline = qbench.load_quantized('my export')"]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    names["pipeline"].set_progress_bar_config(disable=True)
    assert len(names["pipeline"](num_images=2).images) == 2

    answer = qbench("export", "tiny-ddim.linear.W4A8.s0", "--to", "another", "--json")
    said = json.loads(answer.out)
    assert (said["path"], said["cell"], said["suite"]) == ("another", "tiny-ddim.linear.W4A8.s0", "smoke")
    files = [each for each in (workplace / "another").rglob("*") if each.is_file()]
    assert said["total_bytes"] == sum(each.stat().st_size for each in files)
    assert said["weights_bytes"] == (workplace / "another" / "unet" / "weights.safetensors").stat().st_size
    assert {*said["files"], "qbench.json", "README.md"} == {
        each.relative_to(workplace / "another").as_posix() for each in files
    }

    answer = qbench("export", "tiny-ddim.linear.W4A8.s0", "--to", "another")
    assert (answer.code, answer.out) == (1, "")
    assert "another is a folder with something in it, and nothing is overwritten" in answer.err


def test_a_network_of_ones_own_is_refused(qbench: Qbench, finished_suite: Path, workplace: Path) -> None:
    answer = qbench("export", MICRO, "--to", "to")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("qbench: the denoiser of the workload 'micro' is a MicroDenoiser, a class of its own")
    assert answer.err.count("\n") == 1
    assert not [each for each in workplace.iterdir() if "to" in each.name and each.name != "store"]


def test_the_place_is_looked_at_first(qbench: Qbench, workplace: Path) -> None:
    (workplace / "to").write_text("mine")
    answer = qbench("export", "no such cell", "--to", "to")
    assert answer.code == 1
    assert "to is a file, and nothing is overwritten" in answer.err


@pytest.mark.parametrize("arguments", [[], [MICRO], ["--to", "to"], [MICRO, "--to", "to", "--set", "x"]])
def test_usage(arguments: list[str], qbench: Qbench, workplace: Path) -> None:
    assert qbench("export", *arguments).code == 2


def test_a_typo(qbench: Qbench, finished_suite: Path) -> None:
    answer = qbench("export", "micro.round.W4A8.s1", "--to", "to", "--store", "nowhere")
    assert answer.code == 1
    assert answer.err == "qbench: micro.round.W4A8.s1: no such cell in results: did you mean 'micro.round.W4A8.s0'?\n"


def test_the_command_that_makes_what_is_missing_works(qbench: Qbench, finished_suite: Path, workplace: Path) -> None:
    answer = qbench("export", MICRO, "--to", "to", "--store", "other")
    assert answer.code == 1
    assert not (workplace / "other").exists()
    command = answer.err.partition("`")[2].partition("`")[0]
    assert qbench(*shlex.split(command)[1:]).code == 0
    assert "MicroDenoiser" in qbench("export", MICRO, "--to", "to", "--store", "other").err


def test_control_c_leaves_nothing(
    qbench: Qbench, finished_suite: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qbench.export.write.write_parts", interrupt)
    before = sorted(workplace.iterdir())
    answer = qbench("export", MICRO, "--to", "to")
    assert (answer.code, answer.out) == (130, "")
    assert "stopped; nothing was written" in answer.err
    assert sorted(workplace.iterdir()) == before


def test_a_full_disk(qbench: Qbench, finished_suite: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As safetensors tells it."""
    from safetensors import SafetensorError

    def fail(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("qbench.export.write.write_parts", fail)
    answer = qbench("export", MICRO, "--to", "to")
    assert answer.code == 1
    assert (
        "to cannot be written (Error while serializing: I/O error: No space left on device (os error 28))" in answer.err
    )
    assert not (workplace / "to").exists()
