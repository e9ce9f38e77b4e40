"""However many images a cell has, sampling and scoring them takes the same memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

WIDE = """
import numpy as np

from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Against, Need, SumMetric


class Wide(Extractor):
    title = "a row of {width} numbers"
    features = ("wide",)
    image_shapes = ((1, 8, 8),)

    def weights(self):
        return {{}}

    def load(self, device):
        def extract(images, captions):
            return {{"wide": images.to(device).float().mean(dim=(1, 2, 3))[:, None].expand(-1, {width})}}

        return extract


class WideMean(SumMetric):
    title = "mean of wide rows"
    need = Need("wide", "wide")
    against = Against.NOTHING
    direction = "lower"
    protocol = "none"

    def sums(self, rows, paired):
        return {{"count": np.float64(len(rows)), "sum": rows.sum(0)}}

    def compute(self, sums, reference):
        return float((sums["sum"] / sums["count"]).mean())
"""
ENTRY_POINTS = "[qbench.extractors]\nwide = wide:Wide\n\n[qbench.metrics]\nwide-mean = wide:WideMean\n"
RUN = """
import json, sys
from qbench.cli.main import main
try:
    main()
except SystemExit as leaving:
    code = leaving.code or 0
from qbench.environment import peak_memory_mb
print(json.dumps([code, peak_memory_mb() * 1e6]), file=sys.stderr)
"""
MICRO = {"methods": ["round"], "bits": ["W4A32"], "metrics": ["wide-mean", "mse-to-fp"], "steps": 2}


@pytest.fixture
def peak_bytes(
    install: Callable[..., None], micro_suite: Callable[..., Path], workplace: Path
) -> Callable[[int, int], int]:
    """Return a function that runs a suite in a fresh process: images and width of features in, peak memory out."""

    def measure(samples: int, width: int) -> int:
        suite = micro_suite(f"{samples}.yaml", name=f"of-{samples}", samples=samples, **MICRO)
        words = ["run", str(suite), "--store", f"store-{samples}"]
        done = subprocess.run(
            [sys.executable, "-c", RUN, *words], cwd=workplace, env=os.environ, capture_output=True, text=True
        )
        code, peak = json.loads(done.stderr.splitlines()[-1])
        assert code == 0, done.stderr
        stored = sum(path.stat().st_size for path in (workplace / f"store-{samples}").rglob("wide.npy"))
        assert stored > 2 * samples * width * 4  # full precision and the quantized cell
        return int(peak)

    return measure


FEW, MANY, WIDTH = 2_000, 20_000, 2048
SMALLER = 300, 3_000, 16384
"""Without benchmarks, and judged all the same: memory is no matter of how busy a machine is."""


def test_ten_times_the_images_take_at_most_a_tenth_more(
    benchmark: BenchmarkFixture,
    judged: Callable[..., bool],
    install: Callable[..., None],
    peak_bytes: Callable[[int, int], int],
) -> None:
    """Features of the many are larger than that tenth: whoever keeps them all, mapped or read, is found out."""
    few, many, width = SMALLER if benchmark.disabled else (FEW, MANY, WIDTH)
    install("wide", ENTRY_POINTS, {"wide.py": WIDE.format(width=width)})
    first, second = peak_bytes(few, width), peak_bytes(many, width)
    assert (many - few) * width * 4 > 0.1 * first
    benchmark.extra_info["figure"] = f"{first / 1e6:.0f} MB and {second / 1e6:.0f} MB"
    assert judged(second / first, 1.1, f"peak memory of sampling and scoring {many:,} images over {few:,}")
    assert second <= 1.1 * first
