"""From a cell to a folder, and back to the cell's images."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import qbench
from qbench.errors import ExportError
from qbench.identity import file_digest

pytestmark = pytest.mark.usefixtures("one_thread")
WORKLOADS = ("tiny-ddim", "tiny-ldm", "tiny-ldm-kl", "tiny-sd")
SAMPLES = 3
Exported = Callable[[str], Path]
AsBytes = Callable[[Any], NDArray[np.uint8]]


def sampled(folder: Path, workload: str, **options: Any) -> Any:
    from qbench.zoo.caption_lists import evaluation_captions

    pipeline = qbench.load_quantized(folder, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    prompt = list(evaluation_captions()[:SAMPLES]) if workload == "tiny-sd" else None
    return pipeline(prompt, indices=range(SAMPLES), **options).images


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_images_are_the_cells_to_the_byte(workload: str, world: Any, exported: Exported, as_bytes: AsBytes) -> None:
    np.testing.assert_array_equal(as_bytes(sampled(exported(workload), workload)), world.images(workload))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_packed_files_are_those_of_the_store(workload: str, world: Any, exported: Exported) -> None:
    folder = exported(workload)
    for kind in ("weights", "activations"):
        manifest = json.loads((world.artefact(workload, kind) / "manifest.json").read_text())
        said = json.loads((folder / "qbench.json").read_text())["files"][f"unet/{kind}.safetensors"]
        assert file_digest(folder / "unet" / f"{kind}.safetensors") == said
        assert manifest["files"] == {f"{kind}.safetensors": said}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_other_weights_of_the_denoiser_are_there(workload: str, exported: Exported) -> None:
    """Four bits a weight, eight in the first and last layer: far less than half of 16 bits."""
    files = {each.name: each.stat().st_size for each in (exported(workload) / "unet").iterdir()}
    assert files.keys() == {"config.json", "weights.safetensors", "activations.safetensors"}
    assert sum(files.values()) < 1.1e6


@pytest.mark.parametrize("bits", ["W4A32", "W32A8"])
def test_weights_or_activations_alone(bits: str, world: Any, tmp_path: Path, as_bytes: AsBytes) -> None:
    from qbench.cli.main import app

    arguments = [*world.arguments, "--set", "workloads=[tiny-ddim]", "--set", f"bits=[{bits}]"]
    found = qbench_call(app, "export", f"tiny-ddim.linear.{bits}.s0", "--to", tmp_path / "to", *arguments)
    assert found.exit_code == 0, found.output
    grids = tmp_path / "to" / "unet" / "activations.safetensors"
    assert grids.is_file() == (bits == "W32A8")
    np.testing.assert_array_equal(as_bytes(sampled(tmp_path / "to", "tiny-ddim")), world.images("tiny-ddim", bits))


def qbench_call(app: Any, *arguments: object) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_moved_folder_loads_in_a_fresh_process_without_network(
    exported: Exported, world: Any, tmp_path: Path
) -> None:
    shutil.copytree(exported("tiny-ldm"), tmp_path / "else where")
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('the network was used')\n"
        "socket.socket.connect = refuse\n"
        "import numpy, qbench\n"
        "pipeline = qbench.load_quantized('else where', device='cpu')\n"
        "images = pipeline(num_images=3, output_type='np').images\n"
        "numpy.save('images.npy', (images * 255).round().astype('uint8').transpose(0, 3, 1, 2))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "QBENCH_STORE": str(tmp_path / "no-store")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), world.images("tiny-ldm"))


def test_nothing_of_this_machine_is_told(exported: Exported, world: Any) -> None:
    texts = [each.read_text() for each in exported("tiny-sd").rglob("*.json")]
    assert len(texts) == 7
    assert not [text for text in texts if str(world.home) in text or "site-packages" in text or str(Path.cwd()) in text]


def test_the_card_says_what_it_is(exported: Exported) -> None:
    text = (exported("tiny-sd") / "README.md").read_text()
    for said in (
        "tiny-sd",
        "W4A8",
        "8 weight bits",
        "`linear`",
        "MB packed",
        "load_quantized",
        "guidance 3",
        "mse-to-fp",
    ):
        assert said in text
    assert "Simulated" in text


def test_a_model_that_its_configuration_does_not_express_is_refused(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qbench.export.cell import Request, find_cell
    from qbench.export.write import export_cell
    from qbench.store import Store
    from qbench.zoo.tiny_ddim import TinyDDIM

    load = TinyDDIM.load

    def altered(self: TinyDDIM) -> Any:
        found = load(self)
        found.module.mid_block.attentions[0].rescale_output_factor = 2.0
        return found

    store = Store(world.home / "store", read_only=True)
    request = Request(world.home / "results", str(world.suite))
    found = find_cell("exported/tiny-ddim.linear.W4A8.s0", request, store)
    monkeypatch.setattr(TinyDDIM, "load", altered)
    with pytest.raises(ExportError, match="'tiny-ddim' cannot be exported: its model computes something that neither"):
        export_cell(found, tmp_path / "to")
    assert list(tmp_path.iterdir()) == []
