"""Options about the device: what is refused, and what the record says of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qbench.stages import batching

Qbench = Callable[..., Any]
MicroSuite = Callable[..., Path]


def environments(workplace: Path) -> list[dict[str, Any]]:
    paths = sorted((workplace / "results" / "micro" / "records").glob("*.json"))
    return [json.loads(path.read_text())["environment"] for path in paths]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_known", {})


@pytest.mark.parametrize("option", ["--tf32", "--cuda-graphs"])
@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is CUDA here")
def test_what_only_cuda_has(qbench: Qbench, micro_suite: MicroSuite, option: str, device: str) -> None:
    answer = qbench("run", micro_suite(), option, "--device", device)
    assert answer.code == 1
    assert f"qbench: {option} is for CUDA only, and the device here is " in answer.err


@pytest.mark.parametrize("option", ["--tf23", "--channel-last", "--compiled", "--cuda-graph"])
def test_typos(qbench: Qbench, micro_suite: MicroSuite, option: str) -> None:
    answer = qbench("run", micro_suite(), option)
    assert answer.code == 2
    assert option in answer.err


def test_several_devices_are_for_another_executor(qbench: Qbench, micro_suite: MicroSuite) -> None:
    answer = qbench("run", micro_suite(), "--device", "cuda:0,cuda:1")
    assert (answer.code, answer.err) == (
        1,
        "qbench: --device cuda:0,cuda:1: one device at a time; --executor ray uses all that there are\n",
    )


def test_what_is_as_usual_is_not_told(qbench: Qbench, micro_suite: MicroSuite, workplace: Path) -> None:
    assert qbench("run", micro_suite(), "--device", "cpu").code == 0
    found = environments(workplace)
    assert found
    assert not any({"batch_sizes", "tf32", "channels_last", "compiled", "cuda_graphs"} & set(each) for each in found)


def test_the_record_says_what_is_not(qbench: Qbench, micro_suite: MicroSuite, workplace: Path) -> None:
    answer = qbench("run", micro_suite(), "--device", "cpu", "--batch-size", 5, "--channels-last")
    assert answer.code == 0, answer.err
    for each in environments(workplace):
        assert (each["batch_sizes"], each["channels_last"]) == ([5], True)


def test_too_little_memory_is_told_and_the_run_goes_on(
    qbench: Qbench, micro_suite: MicroSuite, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from micro_network import MicroDenoiser

    forward = MicroDenoiser.forward

    def limited(self: Any, x: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        if len(x) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, x, *arguments, **keywords)

    monkeypatch.setattr(MicroDenoiser, "forward", limited)
    answer = qbench("run", micro_suite(samples=13), "--device", "cpu")
    assert answer.code == 0, answer.err
    told = [line for line in answer.err.splitlines() if "too little memory" in line]
    assert any(line.startswith("activations: ") for line in told)
    assert any(line.startswith("sample: ") and line.endswith("going on with 7") for line in told)
    assert len(told) == len(set(told))  # what turned out to fit is remembered
    assert all(each["batch_sizes"] == [7] for each in environments(workplace))
