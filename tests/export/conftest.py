"""Cells of the shipped models, run once, and the folders that they were exported to."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

WORKLOADS = ("tiny-ddim", "tiny-ldm", "tiny-ldm-kl", "tiny-sd")
SUITE: dict[str, Any] = {
    "name": "exported",
    "workloads": list(WORKLOADS),
    "methods": [{"name": "linear", "settings": {"calibration": {"steps": 2, "per_step": 2}}}],
    "bits": ["W4A8"],
    "metrics": ["mse-to-fp"],
    "samples": 3,
    "steps": 2,
    "boundary_bits": 8,
}
SAMPLES: int = SUITE["samples"]


@dataclass(frozen=True)
class World:
    """A suite that was run."""

    home: Path

    @property
    def suite(self) -> Path:
        return self.home / "exported.yaml"

    @property
    def arguments(self) -> list[str]:
        """Where `qbench export` finds everything."""
        return [f"--{name}={self.home / name}" for name in ("results", "store")] + [f"--suite={self.suite}"]

    def record(self, workload: str, bits: str = "W4A8") -> Any:
        path = self.home / "results" / "exported" / "records" / f"{workload}.linear.{bits}.s0.json"
        return json.loads(path.read_text())

    def artefact(self, workload: str, kind: str, bits: str = "W4A8") -> Path:
        (digest,) = [each["digest"] for each in self.record(workload, bits)["stages"] if each["stage"] == kind]
        return self.home / "store" / "artefacts" / kind / str(digest)

    def images(self, workload: str, bits: str = "W4A8") -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = np.load(self.artefact(workload, "sample", bits) / "images.npy")
        return found


def called(*arguments: object) -> Any:
    from typer.testing import CliRunner

    from qbench.cli.main import app

    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """All shipped workloads at W4A8, tiny-ddim at W4A32 and W32A8 too; one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = World(tmp_path_factory.mktemp("world"))
    found.suite.write_text(yaml.safe_dump(SUITE))
    more = ["--set=workloads=[tiny-ddim]", "--set=bits=[W4A32, W32A8]"]
    for options in ([], more):
        done = called("run", found.suite, *options, *found.arguments[:2])
        assert done.exit_code == 0, done.output
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="session")
def exported(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder that a workload's W4A8 was exported to; it is not to be changed."""
    home = tmp_path_factory.mktemp("exported")

    def folder(workload: str) -> Path:
        target = home / workload
        if not target.exists():
            done = called("export", f"exported/{workload}.linear.W4A8.s0", "--to", target, *world.arguments)
            assert done.exit_code == 0, done.output
        return target

    return folder


@pytest.fixture
def own_copy(exported: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the smallest exported folder with an autoencoder, to be damaged."""
    return Path(shutil.copytree(exported("tiny-ldm-kl"), tmp_path / "copy"))


@pytest.fixture
def as_bytes() -> Callable[[Any], NDArray[np.uint8]]:
    """Return a function from PIL images to uint8 [images, channels, height, width]."""

    def convert(images: Sequence[Any]) -> NDArray[np.uint8]:
        arrays = [np.asarray(each) for each in images]
        return np.stack([each[None] if each.ndim == 2 else each.transpose(2, 0, 1) for each in arrays])

    return convert
