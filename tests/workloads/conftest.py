"""Original networks of CompVis at reduced width, converted and loaded."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from originals import Original

    from qbench.workloads.loading import LoadedPipeline

# The original networks are modules beside this file; nothing else of the tests is imported by name.
sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True)
class Converted:
    """An original model, the folder that its checkpoint became, and what is loaded from there."""

    original: "Original"
    folder: Path
    loaded: "LoadedPipeline"


@pytest.fixture(scope="session", params=["bedrooms", "churches", "stable-diffusion"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Each model, from a checkpoint with averaged weights."""
    from originals import original

    from qbench.workloads.conversion import convert
    from qbench.workloads.loading import load_pipeline_folder

    model = original(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = model.write(folder.with_suffix(".ckpt"))
    convert(checkpoint, model.family, folder)
    return Converted(model, folder, load_pipeline_folder(folder))
