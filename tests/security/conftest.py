"""Records, made without running anything; as those of tests/results are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.identity import digest
from qbench.records import Record, write_record


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Return a function that makes the record of a complete cell; keywords replace its values."""

    def make(label: str = "round", bits: str = "W4A8", position: int = 1, **changes: Any) -> Record:
        full = label == "full-precision"
        baseline = {
            "workload": {"name": "micro", "settings": {"sampler": {"name": "ddim", "steps": 4, "eta": 0.0}}},
            "method": None,
            "bits": "W32A32",
        }
        description = baseline if full else baseline | {"method": {"name": label}, "bits": bits}
        metric = {"title": "T", "direction": "lower", "protocol": "P", "paper": "", "description": {"metric": "m"}}
        difference = {} if full else {"delta": 0.25, "low": 0.125, "high": 0.375}
        values = {
            "suite": {"name": "micro", "title": "A title", "position": position},
            "workload": "micro",
            "method": None if full else label,
            "label": label,
            "bits": bits,
            "boundary_bits": None if full else 8,
            "seed": 0,
            "samples": 12,
            "status": "complete",
            "description": description,
            "digest": digest(changes.get("description", description)),
            "baseline": digest(baseline),
            "results": {
                name: digest({"of": name, "cell": description}) for name in ("profile", "distance", "mse-to-fp")
            },
            "metrics": {
                "distance": metric | {"against": "real images"},
                "mse-to-fp": metric | {"against": "full-precision images of the same noise"},
            },
            "figures": {
                "distance": {"value": 1.5, "samples": 12} | difference,
                "mse-to-fp": {"value": 0.0 if full else 0.25, "samples": 12} | difference,
            },
            "profile": {"size_mb": 0.5, "coverage_macs": 0.75, "coverage_parameters": 1.0, "left_out": []},
            "stages": [{"stage": "sample", "digest": "0" * 64, "seconds": 2.5, "peak_memory_mb": 100.0}],
            "environment": {"device": "cpu", "threads": 1},
        }
        return Record.model_validate(values | changes)

    return make


@pytest.fixture
def write_records(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes records into a suite's folder of ``results`` and returns that folder."""

    def write(*records: Record, suite: str = "micro") -> Path:
        folder = tmp_path / "results" / suite
        for record in records:
            name = f"{record.workload}.{record.label}.{record.bits}.s{record.seed}.json"
            write_record(record, folder / "records" / name)
        return folder

    return write
