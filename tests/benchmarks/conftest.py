"""Benchmarks compare two things in one run, turn and turn about, so that a busy machine slows both.

``pytest tests/benchmarks`` measures and asserts; with ``--benchmark-disable``, as in CI, each thing runs once.

Each leaves in ``benchmark.extra_info``, for ``write_table.py``: ``ratio`` and, unless it is a report only, ``limit``;
``bound``, "at most" or "at least"; ``unit``, empty for a ratio; ``compared``, what stands over what; and ``figure``,
what else to say of it.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.bits import BitWidth
from qbench.diffusion.unet_structure import unet_structure
from qbench.environment import environment
from qbench.plugins import WORKLOADS
from qbench.quant import CalibrationData, QuantModel
from qbench.workload import Workload

Work = Callable[[], Any]
ROUNDS, MOST_ROUNDS = 11, 33
"""Turns of each; one before them warms up. The median of so many ratios varies by about a hundredth."""
CLOSE = 0.05
"""A median as close to its limit as this, either way, is not believed before it is one of more rounds."""


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Say what decides speed here, besides what pytest-benchmark finds out."""
    found = environment("cpu")
    machine_info["qbench"] = {key: found[key] for key in ("processor", "cores", "instructions", "threads", "versions")}
    if torch.cuda.is_available():
        machine_info["qbench"]["accelerator"] = torch.cuda.get_device_name()


@pytest.fixture
def judged(benchmark: BenchmarkFixture) -> Callable[..., bool]:
    """Return a judge of a number that a test has measured itself; nothing is judged where benchmarks are off."""

    def judge(measured: float, limit: float, compared: str = "", unit: str = "", bound: str = "at most") -> bool:
        benchmark.extra_info |= {
            "ratio": measured, "limit": limit, "compared": compared, "unit": unit, "bound": bound
        }  # fmt: skip
        benchmark.pedantic(lambda: None)
        print(f"{compared}: {measured:.3f} {unit}; {bound} {limit:.3f}")
        return benchmark.disabled or (measured <= limit if bound == "at most" else measured >= limit)

    return judge


@pytest.fixture
def takes_at_most(benchmark: BenchmarkFixture) -> Callable[..., bool]:
    """Return a judge of whether the first takes at most so many times as long as the second.

    Where benchmarks are switched off, both run once and nothing is judged.
    """

    def judge(measured: Work, reference: Work, limit: float, compared: str = "") -> bool:
        if benchmark.disabled:
            measured()
            reference()
            benchmark.pedantic(lambda: None)
            return True
        ratios = [_seconds(measured) / _seconds(reference) for _ in range(1 + ROUNDS)][1:]
        while abs(median(ratios) / limit - 1) < CLOSE and len(ratios) < MOST_ROUNDS:
            ratios.append(_seconds(measured) / _seconds(reference))
        ratio = median(ratios)
        benchmark.extra_info |= {"ratio": ratio, "limit": limit, "compared": compared}
        benchmark.pedantic(measured, rounds=2)
        print(f"{ratio:.3f} times as long; at most {limit:.3f}")
        return ratio <= limit

    return judge


@pytest.fixture
def data() -> CalibrationData:
    """256 rows of noise at all steps: what they are makes no difference to how long things take."""
    x = torch.randn(256, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = torch.arange(256) % 20
    return CalibrationData(x, 950 - 50 * steps, steps, 64, lambda share: None)


@pytest.fixture
def tiny_ddim() -> Callable[[BitWidth], QuantModel]:
    """Return a maker of models of the shipped denoiser."""

    def make(bits: BitWidth) -> QuantModel:
        workload = WORKLOADS.load("tiny-ddim")
        assert issubclass(workload, Workload)
        loaded = workload(WORKLOADS.entry("tiny-ddim"), workload.settings_class()).load()
        module = loaded.module.eval().requires_grad_(False)
        return QuantModel(module, unet_structure(module), bits, boundary_bits=8)

    return make


def _seconds(work: Work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
