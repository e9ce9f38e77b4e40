"""Images and denoisers of other programs as rows of a suite."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from qbench.bits import BitWidth
from qbench.errors import DataError, SuiteError
from qbench.execution.listener import Listener
from qbench.execution.run import run_suite
from qbench.plan import make_plan
from qbench.plugins import WORKLOADS
from qbench.quant import QuantModel, min_max_per_channel
from qbench.records import Record
from qbench.stages.stage import Runtime
from qbench.store import Store
from qbench.suite import load_suite
from qbench.workload import Workload

SAMPLES = 40
SUITE = """\
name: theirs
workloads: [tiny-ddim]
methods:
  - {{name: linear, settings: {{calibration: {{steps: 2, per_step: 8}}}}}}
  - {{name: external, settings: {settings}, as: theirs}}
bits: [{bits}]
metrics: [fd-fashion, mse-to-fp]
samples: {samples}
steps: 2
boundary_bits: 8
"""
Run = Callable[..., dict[str, Record]]


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    def write(settings: str, bits: str = "W4A32", samples: int = SAMPLES) -> Path:
        path = tmp_path / "theirs.yaml"
        path.write_text(SUITE.format(settings=settings, bits=bits, samples=samples))
        return path

    return write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all tests, since full precision and linear are the same in all of them."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def run(tmp_path: Path, store: Store, write_suite: Callable[..., Path]) -> Run:
    """Run a suite and return its records by label."""

    def made(*arguments: str, **changes: int) -> dict[str, Record]:
        suite = load_suite(write_suite(*arguments, **changes))
        outcome = run_suite(suite, store, tmp_path / "results", Runtime("cpu"), Listener())
        return {record.label: record for record in outcome.records}

    return made


def write_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image[0]).save(folder / f"{index}.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write_images(folder, np.random.default_rng(0).integers(0, 256, (SAMPLES + 5, 1, 16, 16), np.uint8))
    return folder


@pytest.fixture
def module() -> torch.nn.Module:
    workload = WORKLOADS.load("tiny-ddim")
    assert issubclass(workload, Workload)
    return workload(WORKLOADS.entry("tiny-ddim"), workload.settings_class()).load().module


class TestImages:
    def test_they_are_a_row_without_size_and_pairs(self, run: Run, images: Path, tmp_path: Path) -> None:
        records = run(f"{{bits: W4A32, images: {images}}}")
        theirs = records["theirs"]
        assert (theirs.status, theirs.profile, theirs.curve) == ("complete", None, None)
        assert set(theirs.figures) == {"fd-fashion"}
        assert theirs.figures["fd-fashion"].value > 1.5 * records["linear"].figures["fd-fashion"].value
        assert theirs.figures["fd-fashion"].low is not None
        text = (tmp_path / "results" / "theirs" / "table.md").read_text(encoding="utf-8")
        assert "| theirs (made elsewhere) | W4A32 | - | - |" in text

    def test_of_the_same_noise_they_are_compared_pair_by_pair(self, run: Run, images: Path) -> None:
        assert run(f"{{bits: W4A32, images: {images}, same_noise: true}}")["theirs"].figures["mse-to-fp"].value > 0.1

    def test_our_own_images_brought_back_have_our_own_figures(
        self, run: Run, images: Path, store: Store, tmp_path: Path
    ) -> None:
        own = run(f"{{bits: W4A32, images: {images}}}")["linear"]
        digest = next(cost.digest for cost in own.stages if cost.stage == "sample")
        found = np.load(store.get("sample", digest).file("images.npy"))
        write_images(tmp_path / "back", found)
        theirs = run(f"{{bits: W4A32, images: {tmp_path / 'back'}, same_noise: true}}")["theirs"]
        assert theirs.figures == own.figures

    def test_what_they_are_is_their_content_not_their_place(
        self, write_suite: Callable[..., Path], images: Path
    ) -> None:
        def digest(folder: Path) -> str:
            return load_suite(write_suite(f"{{bits: W4A32, images: {folder}}}")).cells[-1].digest

        before = digest(images)
        moved = images.rename(images.with_name("moved"))
        assert digest(moved) == before
        Image.new("L", (16, 16)).save(moved / "3.png")
        assert digest(moved) != before

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ("{bits: W4A32, images: %s}", "'images' holds 45 images, and the suite asks for 46 samples"),
            ("{bits: W4A32, images: ./no-such-folder}", "no-such-folder"),
            ("{}", "external needs a setting: images or denoiser"),
            ("{images: %s}", "external needs a setting: bits, as its makers say"),
            ("{bits: W5, images: %s}", "'W5' is no bit-width"),
            ("{bits: W2A32, images: %s}", "'theirs' has no row at any of the suite's bits and seeds"),
            ("{images: a, denoiser: b}", "name images or a denoiser, not both"),
            ("{denoiser: b, same_noise: true}", "same_noise is said of images"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, write_suite: Callable[..., Path], images: Path, settings: str, message: str
    ) -> None:
        text = settings % images if "%s" in settings else settings
        with pytest.raises((SuiteError, DataError), match=message):
            make_plan(load_suite(write_suite(text, samples=46)))

    def test_images_of_another_size_are_refused(self, write_suite: Callable[..., Path], tmp_path: Path) -> None:
        write_images(tmp_path / "large", np.zeros((SAMPLES, 1, 32, 32), np.uint8))
        suite = load_suite(write_suite(f"{{bits: W4A32, images: {tmp_path / 'large'}}}"))
        with pytest.raises(
            SuiteError, match=r"theirs: the images of 'large' have the shape \(1, 32, 32\), and those of"
        ):
            make_plan(suite)

    def test_they_stand_at_one_width_and_seed(self, write_suite: Callable[..., Path], images: Path) -> None:
        path = write_suite(f"{{bits: W4A8, seed: 1, images: {images}}}", "W4A32, W4A8")
        suite = load_suite(path, {"seeds": [0, 1, 2]})
        assert [(str(cell.bits), cell.seed) for cell in suite.cells if cell.label == "theirs"] == [("W4A8", 1)]


class TestDenoiser:
    @pytest.fixture
    def rounded(self, module: torch.nn.Module, tmp_path: Path) -> Path:
        """The denoiser with every weight of a layer on four bits, the first and last on eight, as another program has
        it.
        """
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        for name, tensor in state.items():
            if name.endswith("weight") and tensor.dim() > 1:
                bits = 8 if name.startswith(("conv_in", "conv_out")) else 4
                state[name] = min_max_per_channel(tensor, bits)(tensor)
        folder = tmp_path / "unet"
        folder.mkdir()
        save_file(state, folder / "diffusion_pytorch_model.safetensors")
        return folder

    def test_it_is_sampled_here_and_packed(self, run: Run, rounded: Path) -> None:
        """Round to nearest between extremes is what linear does, so their figures are equal."""
        records = run(f"{{bits: W4A32, denoiser: {rounded}}}")
        theirs, linear = records["theirs"], records["linear"]
        assert theirs.status == "complete"
        assert theirs.profile is not None
        assert linear.profile is not None
        assert theirs.profile.size_mb == pytest.approx(linear.profile.size_mb, rel=0.01)
        assert theirs.profile.coverage_macs == linear.profile.coverage_macs
        assert theirs.figures["mse-to-fp"].value == pytest.approx(linear.figures["mse-to-fp"].value, rel=0.02)
        assert theirs.curve is not None

    def test_a_layer_that_nobody_rounded_counts_as_left_out(self, run: Run, rounded: Path, module: torch.nn.Module):
        path = rounded / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        state["mid_block.resnets.0.conv1.weight"] = module.state_dict()["mid_block.resnets.0.conv1.weight"]
        save_file(state, path)
        profile = run(f"{{bits: W4A32, denoiser: {rounded}}}")["theirs"].profile
        assert profile is not None
        assert profile.left_out == ["mid_block.resnets.0.conv1"]

    def test_bits_of_activations_are_refused(self, write_suite: Callable[..., Path], rounded: Path) -> None:
        with pytest.raises(SuiteError, match="reads the weights of a denoiser and no grids of activations"):
            load_suite(write_suite(f"{{bits: W4A8, denoiser: {rounded}}}", "W4A8"))

    def test_weights_of_another_model_fail_the_row(self, run: Run, rounded: Path) -> None:
        path = rounded / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        state["conv_in.weight"] = state["conv_in.weight"][:3].clone()
        save_file(state, path)
        record = run(f"{{bits: W4A32, denoiser: {rounded}}}")["theirs"]
        assert "holds another model than the workload's: they differ in 'conv_in.weight'" in (record.reason or "")

    def test_a_folder_without_weights_is_refused(self, write_suite: Callable[..., Path], tmp_path: Path) -> None:
        with pytest.raises((SuiteError, DataError), match="holds no weights of a denoiser"):
            make_plan(load_suite(write_suite(f"{{bits: W4A32, denoiser: {tmp_path}}}")))

    @pytest.mark.parametrize("stored_as", [torch.float16, torch.bfloat16])
    def test_half_precision_is_recognised(self, run: Run, rounded: Path, stored_as: torch.dtype) -> None:
        path = rounded / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        wide = ("conv_in.weight", "conv_out.weight")  # of eight bits, which bfloat16 cannot hold
        save_file({name: tensor if name in wide else tensor.to(stored_as) for name, tensor in state.items()}, path)
        profile = run(f"{{bits: W4A32, denoiser: {rounded}}}")["theirs"].profile
        assert profile is not None
        assert profile.left_out == []
        assert profile.size_mb < 0.16 * 6.3

    def test_a_denoiser_that_nobody_rounded_fails(self, run: Run, rounded: Path, module: torch.nn.Module) -> None:
        save_file(module.state_dict(), rounded / "diffusion_pytorch_model.safetensors")
        assert "lies on a uniform grid of 4 bits" in (
            run(f"{{bits: W4A32, denoiser: {rounded}}}")["theirs"].reason or ""
        )

    def test_biases_come_along(self, rounded: Path, module: torch.nn.Module) -> None:
        from qbench.diffusion.unet_structure import unet_structure
        from qbench.quant import load_checkpoint

        path = rounded / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        state["conv_out.bias"] = state["conv_out.bias"] + 1
        save_file(state, path)
        model = QuantModel(module.eval().requires_grad_(False), unet_structure(module), BitWidth(4, 32))
        load_checkpoint(model, rounded)
        assert torch.equal(model.module.state_dict()["conv_out.bias"], state["conv_out.bias"])
