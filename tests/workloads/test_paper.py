"""The paper's four workloads from one end to the other, at reduced width, by the code that the real ones take."""

import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import yaml
from originals import Original, original

from qbench.plan import make_plan
from qbench.suite import load_suite
from qbench.workloads.conversion import convert

Qbench = Callable[..., Any]
CLASSES = {"ldm-lsun-bedroom": "LDMBedroom", "ldm-lsun-church": "LDMChurch", "sd-v1-4": "StableDiffusion14"}
ORIGINALS = {"ldm-lsun-bedroom": "bedrooms", "ldm-lsun-church": "churches", "sd-v1-4": "stable-diffusion"}
PRESETS = {
    "ddim-cifar10": "cifar10",
    "ldm-lsun-bedroom": "lsun-bedroom",
    "ldm-lsun-church": "lsun-church",
    "sd-v1-4": "stable-diffusion",
}
SIDES = {"ddim-cifar10": 16, "ldm-lsun-bedroom": 64, "ldm-lsun-church": 128, "sd-v1-4": 128}
BITS = {"sd-v1-4": "W4A8S16"}
STAGES_OF_THE_MODEL = {"trajectory", "weights", "activations", "sample", "profile", "curve"}


@pytest.fixture(autouse=True)
def _small_metrics(fake_plugins: Path, install: Callable[..., None]) -> None:
    install("small", small.ENTRY_POINTS, {"small_metrics.py": small.MODULE})


def reduced(name: str) -> Original:
    """The original model of a workload, on latents of 16x16."""
    found = original(ORIGINALS[name])
    return replace(found, family=replace(found.family, denoiser={**found.family.denoiser, "sample_size": 16}))


@pytest.fixture
def checkpoint(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that writes a workload's original checkpoint, which the workload takes for the real one."""

    def write(name: str) -> Path:
        model = reduced(name)
        monkeypatch.setattr(f"qbench.workloads.paper.{CLASSES[name]}.family", model.family)
        return model.write(workplace / "model.ckpt")

    return write


@pytest.fixture
def folder(workplace: Path) -> Callable[[str], Path]:
    """Return a function that writes a workload's folder of diffusers."""

    def write(name: str) -> Path:
        found = workplace / "folder"
        if name == "ddim-cifar10":
            return small.ddpm(found)
        found.mkdir()
        convert(reduced(name).write(workplace / "original.ckpt"), reduced(name).family, found)
        return found

    return write


def suite(
    workplace: Path, name: str, model: str, only: tuple[str, ...] = small.METHODS, bits: str | None = None
) -> Path:
    """Write a suite of two samples and two steps with real images of its own."""
    ptq4dm = None if name == "sd-v1-4" else "as-published"
    methods = small.methods(PRESETS[name], ptq4dm, split=name in ("ddim-cifar10", "sd-v1-4"))
    small.pictures(workplace / "real", SIDES[name] + 3)
    preprocessing = {"crop": "center", "size": SIDES[name]}
    content = {
        "name": "small",
        "workloads": [
            {
                "name": name,
                "settings": {"model": model},
                "reference": {"images": "./real", "preprocessing": preprocessing},
            }
        ],
        "methods": [each for each in methods if each["name"] in only],
        "bits": [bits or BITS.get(name, "W4A8")],
        "metrics": ["mse-to-fp", "small-distance"],
        "samples": 2,
        "steps": 2,
    }
    path = workplace / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def assert_complete(workplace: Path, name: str, only: tuple[str, ...], bits: str | None = None) -> None:
    found = small.records(workplace / "results" / "small")
    expected = {("full-precision", "W32A32"), *((method, bits or BITS.get(name, "W4A8")) for method in only)}
    assert found.keys() == expected
    for (label, _), record in found.items():
        assert record["status"] == "complete", record["reason"]
        assert record["workload"] == name
        figures = record["figures"]
        assert figures["small-distance"]["value"] > 0
        if label != "full-precision":
            assert 0 < figures["mse-to-fp"]["value"] < 4


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_method_runs_on_a_local_folder(
    name: str, qbench: Qbench, folder: Callable[[str], Path], workplace: Path
) -> None:
    folder(name)
    answer = qbench("run", suite(workplace, name, "./folder"))
    assert answer.code == 0, answer.err
    assert_complete(workplace, name, small.METHODS)
    assert not small.stored(workplace / "store", "conversion")


def test_ddim_runs_on_a_local_folder(qbench: Qbench, folder: Callable[[str], Path], workplace: Path) -> None:
    folder("ddim-cifar10")
    answer = qbench("run", suite(workplace, "ddim-cifar10", "./folder", ("qdiffusion",)))
    assert answer.code == 0, answer.err
    assert "2 samples; DDIM 2 steps, spaced quad, eta 0" in answer.out
    assert_complete(workplace, "ddim-cifar10", ("qdiffusion",))


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_original_checkpoint_is_converted_once_for_all_stages(
    name: str, qbench: Qbench, checkpoint: Callable[[str], Path], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(name)
    bits = None if name == "ldm-lsun-bedroom" else "W4A32"  # without calibration, to be quick
    path = suite(workplace, name, "model.ckpt", ("linear",), bits)
    answer = qbench("run", path)
    assert answer.code == 0, answer.err
    assert_complete(workplace, name, ("linear",), bits)
    assert len(re.findall(rf"conversion: checkpoint of {name}: ", answer.err)) == 1
    store = workplace / "store"
    ((conversion, written),) = small.stored(store, "conversion").items()
    for kind in STAGES_OF_THE_MODEL - ({"trajectory", "activations"} if bits else set()):
        manifests = list((store / "artefacts" / kind).glob("*/manifest.json"))
        assert manifests
        for manifest in manifests:
            assert json.loads(manifest.read_text())["description"]["inputs"]["model"] == conversion
    monkeypatch.setattr("qbench.workloads.conversion.convert", None)  # whoever converts now fails
    again = qbench("run", path, "--set", "seeds=[1]", "--only", "method=full-precision")
    assert again.code == 0, again.err
    assert small.stored(store, "conversion") == {conversion: written}


def test_a_checkpoint_and_its_folder_are_one_model(
    qbench: Qbench, checkpoint: Callable[[str], Path], folder: Callable[[str], Path], workplace: Path
) -> None:
    name = "ldm-lsun-bedroom"
    checkpoint(name)
    folder(name)
    for model in ("./model.ckpt", "./folder"):
        assert qbench("run", suite(workplace, name, model, ("squant",)), "--only", "bits=W32A32").code == 0
    images = [np.load(path) for path in (workplace / "store" / "artefacts" / "sample").glob("*/images.npy")]
    assert len(images) == 2
    assert np.array_equal(*images)


def test_planning_converts_nothing_and_a_plan_goes_to_other_processes(
    checkpoint: Callable[[str], Path], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ldm-lsun-bedroom"
    checkpoint(name)
    monkeypatch.setattr("qbench.workloads.conversion.convert", None)
    plan = make_plan(load_suite(suite(workplace, name, "model.ckpt", ("linear",))))
    assert [stage.kind for stage in plan.stages.values()].count("conversion") == 1
    assert pickle.loads(pickle.dumps(plan)).stages.keys() == plan.stages.keys()


def test_planning_imports_no_torch(workplace: Path) -> None:
    """Not for a checkpoint, whatever is in it, nor for the real images, which are read."""
    (workplace / "model.ckpt").write_bytes(b"nothing")
    path = suite(workplace, "ldm-lsun-bedroom", "model.ckpt", ("linear",))
    path.write_text(path.read_text().replace("size: 64", "size: 256"))
    code = (
        "import sys\n"
        "from qbench.plan import make_plan\n"
        "from qbench.suite import load_suite\n"
        f"assert make_plan(load_suite({type(path).__name__}({str(path)!r}))).stages\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    code = "from pathlib import Path, PosixPath\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_without_its_checkpoints_the_paper_is_refused_at_once(workplace: Path, caches: Path) -> None:
    """Everything that is missing in one message, without torch, in a fraction of the ten seconds that it may take."""
    code = (
        "import sys\n"
        "from qbench.cli.main import main\n"
        "sys.argv = ['qbench', 'run', 'paper']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(sorted({'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules)))\n"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert time.perf_counter() - begun < 10
    assert (done.returncode, done.stdout) == (1, "[]\n"), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].endswith("paper.yaml needs what is not here:")
    for name in ("DDPM of CIFAR-10", "LDM-4 of LSUN bedrooms", "LDM-8 of LSUN churches", "Stable Diffusion v1.4"):
        assert sum(line.startswith(f"  {name}") for line in lines) == 1
    for name in ("CIFAR-10, binary", "reference batch of LSUN bedrooms", "LSUN churches, training", "COCO 2014 val"):
        assert sum(line.startswith(f"  {name}") for line in lines) == 1
    assert lines[-1].startswith("get it with: qbench fetch paper   (")


def test_another_name_of_the_checkpoint_is_no_other_checkpoint(
    checkpoint: Callable[[str], Path], workplace: Path
) -> None:
    def digest(model: str) -> str:
        return load_suite(suite(workplace, "ldm-lsun-bedroom", model)).cells[0].digest

    before = digest(checkpoint("ldm-lsun-bedroom").name)
    (workplace / "elsewhere").mkdir()
    (workplace / "model.ckpt").rename(workplace / "elsewhere" / "other.ckpt")
    assert digest("elsewhere/other.ckpt") == before


def test_a_folder_with_another_noise_schedule_is_another_model(
    qbench: Qbench, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.ddpm(workplace / "folder", beta_end=0.03)
    answer = qbench("run", suite(workplace, "ddim-cifar10", "./folder"))
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert "scheduler_config.json says another noise schedule than that of ddim-cifar10" in answer.err


@pytest.mark.parametrize("name", PRESETS)
def test_figures_tell_whether_the_real_images_are_the_papers(name: str, workplace: Path) -> None:
    """A suite's own images must not go by the name of the published ones."""
    workload = load_suite(suite(workplace, name, "./folder")).cells[0].workload
    assert workload.settings.reference.place == ("images", workplace / "real")
    if name == "ddim-cifar10":
        small.ddpm(workplace / "folder")
        assert workload.reference("small-means", {}).name == "real images that the suite names"
