"""Two thousand records: everything that is made of them is made in seconds, and a second time nothing is written."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qbench.cell import cell_id
from qbench.identity import digest
from qbench.records import Record, write_bytes, write_record
from qbench.results.leaderboard import regenerate
from qbench.results.reading import read_suite_results
from qbench.results.strips import strip, strip_path

SUITES = [f"suite-{number}" for number in range(5)]
WORKLOADS = ("tiny-ddim", "tiny-ldm", "tiny-ldm-kl", "tiny-sd")
METHODS = ("linear", "mse", "squant", "ptq4dm", "adaround", "brecq", "qdiffusion", "external-like")
BITS = ("W8A32", "W4A32", "W8A8", "W4A8")
SEEDS = (0, 1, 2)
QUALITY = ("fd-fashion", "sfd-fashion", "is-fashion")
FIDELITY = ("mse-to-fp", "psnr-to-fp", "fd-fashion-to-fp")
STEPS = 20
GOAL_SECONDS = 20.0
PATIENCE = 1.25
"""How much slower a machine of two cores may be that does little else."""


def metric_info(name: str) -> dict[str, Any]:
    weights = {"fashion-features.safetensors": "70dbf104" * 8}
    extractor = {"name": "fashion", "package": "qbench", "revision": 1, "settings": {}, "weights": weights}
    return {
        "title": f"The figure {name} on pooled features of the fashion network",
        "direction": "higher" if name in ("is-fashion", "psnr-to-fp") else "lower",
        "against": "real images" if name in QUALITY else "full-precision images of the same noise",
        "protocol": "uint8-rounded 16x16 images, the 64 pooled features of the network 'fashion'",
        "caveat": "biased upwards, the more the fewer the samples: only figures of one sample count can be compared",
        "paper": "Heusel et al. 2017, arXiv 1706.08500",
        "description": {
            "metric": {"name": name, "package": "qbench", "revision": 1, "settings": {}},
            "extractor": extractor,
            "reference": {"name": "Fashion-MNIST training images, 16x16", "samples": 60000, "extractor": extractor},
        },
    }


METRICS = {name: metric_info(name) for name in (*QUALITY, *FIDELITY)}


def record(
    suite: str, workload: str, label: str, bits: str, seed: int, position: int, rng: np.random.Generator
) -> Record:
    full = label == "full-precision"
    baseline = {
        "workload": {
            "name": workload,
            "settings": {"sampler": {"name": "ddim", "steps": STEPS, "eta": 0.0}},
            "weights": {f"{workload}.safetensors": "0e62ad89" * 8},
        },
        "method": None,
        "bits": "W32A32",
        "boundary_bits": None,
        "seed": seed,
        "samples": 500,
    }
    settings = {"calibration": {"kind": "uniform-steps", "steps": 20, "per_step": 256}, "candidates": 80}
    method = {"name": label, "package": "qbench", "revision": 2, "settings": settings}
    description = baseline if full else baseline | {"method": method, "bits": bits, "boundary_bits": 8}
    levels = {"W32A32": 0.0, "W8A32": 0.1, "W4A32": 1.0, "W8A8": 0.4, "W4A8": 1.5}
    figures = {}
    for name in QUALITY if full else METRICS:
        value = float(2.0 + levels[bits] * (1 + METHODS.index(label) / 4) + rng.normal(0, 0.05)) if not full else 2.0
        delta = {} if full else {"delta": value - 2.0, "low": value - 2.2, "high": value - 1.8}
        without = [float(f"{each:.9g}") for each in value + rng.normal(0, 0.02, 20)]
        figures[name] = {"value": value, "samples": 500, "without": without} | delta
    curve = None
    if not full:
        forced, free = (np.sort(rng.uniform(1e-4, 1e-1, count)).tolist() for count in (STEPS, STEPS + 1))
        timesteps = list(range(951, 0, -50))
        curve = {
            "samples": 64,
            "step_index": list(range(STEPS)),
            "timestep": timesteps,
            "teacher_forced": forced,
            "free_running": free,
        }
    kinds = ("trajectory", "weights", "activations", "sample", "features", "reference", *["score"] * 6, "profile")
    return Record.model_validate(
        {
            "suite": {"name": suite, "title": f"All methods of {suite}", "position": position, "file": suite},
            "workload": workload,
            "method": None if full else label,
            "label": label,
            "bits": bits,
            "boundary_bits": None if full else 8,
            "seed": seed,
            "samples": 500,
            "status": "complete",
            "description": description,
            "digest": digest(description),
            "baseline": digest(baseline),
            "results": {name: digest({"of": name, "cell": description}) for name in ("profile", "curve", *figures)},
            "metrics": {name: METRICS[name] for name in figures},
            "figures": figures,
            "profile": {
                "size_mb": 25.2 / (1 if full else 32 / int(bits[1])),
                "coverage_macs": 0.0 if full else 0.99,
                "coverage_parameters": 0.0 if full else 0.98,
                "left_out": [],
            },
            "curve": curve,
            "stages": [
                {"stage": kind, "digest": digest({"stage": index}), "seconds": 1.5, "peak_memory_mb": 700.0}
                for index, kind in enumerate(kinds)
            ],
            "environment": {"device": "cpu", "threads": 2, "versions": {"torch": "2.9.0", "python": "3.12"}},
        }
    )


def garments(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return twelve grey shapes on black, which a picture's file makes as small as those of a real model."""
    coarse = rng.uniform(60, 255, (12, 1, 4, 4)).repeat(4, 2).repeat(4, 3) + rng.normal(0, 6, (12, 1, 16, 16))
    rows, columns = np.mgrid[:16, :16]
    return np.where((abs(rows - 7.5) < 7) & (abs(columns - 7.5) < 4), coarse, 0).clip(0, 255).astype(np.uint8)


def write_many(results: Path) -> int:
    """Write records with curves, intervals and strips; return how many."""
    rng = np.random.default_rng(0)
    rows = [("full-precision", "W32A32"), *((method, bits) for bits in BITS for method in METHODS)]
    cells = [(label, bits, seed) for seed in SEEDS for label, bits in rows]
    count = 0
    for suite in SUITES:
        folder = results / suite
        for workload in WORKLOADS:
            images = garments(rng)
            for label, bits, seed in [*cells, ("full-precision", "W32A32", 3)]:
                made = record(suite, workload, label, bits, seed, count, rng)
                write_record(made, folder / "records" / f"{cell_id(made.key)}.json")
                write_bytes(strip_path(folder, made), strip(np.roll(images, count % 7, 2), made.digest, []))
                count += 1
    return count


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "results"
    assert write_many(folder) == 2000
    return folder


@pytest.mark.slow
class TestTwoThousandRecords:
    def test_they_are_read_in_a_fraction_of_the_time(self, results: Path):
        start = time.process_time()
        found = [read_suite_results(results / suite) for suite in SUITES]
        assert time.process_time() - start < PATIENCE * GOAL_SECONDS / 5
        assert sum(len(each.records) for each in found) == 2000
        assert not any(each.outdated or each.unreadable for each in found)

    def test_everything_is_made_in_seconds_and_a_second_time_nothing_is_written(self, results: Path):
        start = time.perf_counter()
        assert regenerate(results, processes=2).problems == ()
        assert time.perf_counter() - start < PATIENCE * GOAL_SECONDS
        written = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
        start = time.process_time()
        regenerate(results)
        assert time.process_time() - start < PATIENCE * GOAL_SECONDS
        assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == written
