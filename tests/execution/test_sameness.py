"""What "the same" means: to the byte at one batch partition, to 1e-4 across batch sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qbench.bits import BitWidth
from qbench.diffusion.ddim import DDIM
from qbench.diffusion.noise import Purpose, normal
from qbench.diffusion.samplers import NoiseSource, sample
from qbench.execution.inline import Inline
from qbench.execution.listener import Listener
from qbench.plan import Plan, make_plan
from qbench.quant import min_max_per_channel
from qbench.stages.denoiser import Denoiser, load_denoiser
from qbench.stages.quantized import Quantized
from qbench.stages.sample import FILE, SHARD_SIZE, Sample
from qbench.stages.stage import Runtime, Work
from qbench.store import Store
from qbench.suite import load_suite
from qbench.workload import Workload

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Byte-for-byte equality is promised for one thread count."""


@pytest.fixture
def plan(micro_suite: Callable[..., Path]) -> Callable[..., Plan]:
    return lambda **changes: make_plan(load_suite(micro_suite(**changes)))


@pytest.fixture
def workload(plan: Callable[..., Plan]) -> Workload:
    return plan(workloads=[{"name": "micro", "sampler": {"eta": 0.7}}]).cells[0].cell.workload


@pytest.fixture
def run(workplace: Path) -> Callable[..., Store]:
    """Return a function that computes a plan in a store of its own."""

    def run_one(plan: Plan, name: str, batch_size: int = 125) -> Store:
        store = Store(workplace / name)
        executor = Inline(plan, store, Runtime("cpu", batch_size), Listener())
        executor.run(lambda _: None)
        assert executor.failures == {}
        return store

    return run_one


def images(plan: Plan, store: Store) -> dict[str, NDArray[np.uint8]]:
    """Return all images, by the title of their shard."""
    return {
        stage.title: np.load(store.get(stage.kind, stage.digest).file(FILE))
        for stage in plan.stages.values()
        if isinstance(stage, Sample)
    }


def test_two_fresh_stores_hold_the_same_bytes(plan: Callable[..., Plan], run: Callable[..., Store]):
    made = plan(methods=["round", "linear"])
    first, second = run(made, "first"), run(made, "second")
    different, compared = set(), set()
    for stage in made.stages.values():
        folders = [store.folder(stage.kind, stage.digest) for store in (first, second)]
        files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
        assert files[0].keys() == files[1].keys()
        compared.add(stage.kind)
        different |= {name for name in files[0] if name != "manifest.json" and files[0][name] != files[1][name]}
    assert {"trajectory", "weights", "activations", "sample", "features", "score", "profile", "curve"} <= compared
    assert different == set()


def test_what_is_loaded_from_the_store_computes_what_was_stored(plan: Callable[..., Plan], run: Callable[..., Store]):
    """A run that resumes behind the quantized weights makes the same images as one that never stopped."""
    made = plan(bits=["W4A8"])
    whole = run(made, "whole")
    resumed = Store(Path("resumed"))
    for kind in ("weights", "activations", "trajectory"):
        for folder in (whole.root / "artefacts" / kind).iterdir():
            target = resumed.folder(kind, folder.name)
            target.mkdir(parents=True)
            for path in folder.iterdir():
                (target / path.name).write_bytes(path.read_bytes())
    run(made, "resumed")
    expected, found = images(made, whole), images(made, resumed)
    assert all((expected[title] == found[title]).all() for title in expected)


class TestBatchSizes:
    """At the sampler, where images are still floats."""

    def latents(self, denoiser: Denoiser, workload: Workload, batch_size: int, count: int = SHARD_SIZE) -> Any:
        rows = []
        with torch.inference_mode():
            for start in range(0, count, batch_size):
                indices = range(start, min(start + batch_size, count))
                noise = NoiseSource(workload.latent_shape, 0, Purpose.EVALUATION, indices)
                rows.append(sample(denoiser, DDIM(workload.schedule, workload.sampler), noise, CPU))
        return torch.cat(rows)

    @pytest.mark.parametrize("bits", [BitWidth(32, 32), BitWidth(4, 32)], ids=str)
    def test_images_agree_to_1e_4(self, workload: Workload, bits: BitWidth):
        denoiser = load_denoiser(workload, CPU, {}, bits)
        if bits.quantizes_weights:
            for layer in denoiser.model.layers.values():
                layer.weight_grid = min_max_per_channel(layer.weight, bits.weights)
        denoiser.model.freeze()
        whole = self.latents(denoiser, workload, SHARD_SIZE)
        for batch_size in (1, 16):
            found = self.latents(denoiser, workload, batch_size)
            torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)

    def test_stored_images_differ_by_a_rounding_at_most(self, plan: Callable[..., Plan], run: Callable[..., Store]):
        made = plan(bits=["W4A32"], samples=20)
        whole = images(made, run(made, "whole", batch_size=250))
        for batch_size in (1, 16):
            found = images(made, run(made, f"batch-{batch_size}", batch_size))
            for title, expected in whole.items():
                assert np.abs(found[title].astype(int) - expected).max() <= 1

    def test_figures_agree_where_activations_are_quantized(self, plan: Callable[..., Plan], run: Callable[..., Store]):
        made = plan(bits=["W4A8"], metrics=["mse-to-fp"], samples=60)
        score = made.cells[-1].scores["mse-to-fp"]
        values = [
            json.loads(run(made, f"batch-{size}", size).get("score", score.digest).file("score.json").read_text())
            for size in (1, 16, 250)
        ]
        assert values[0]["value"] > 0
        assert [each["value"] for each in values] == pytest.approx([values[0]["value"]] * 3, rel=0.02)


class TestShards:
    def compute(self, stage: Sample, folder: Path) -> NDArray[np.uint8]:
        folder.mkdir()
        stage.compute(Work({}, folder, Runtime("cpu", 50), lambda _: None))
        found: NDArray[np.uint8] = np.load(folder / FILE)
        return found

    def test_an_image_does_not_depend_on_how_many_are_asked_for(self, workload: Workload, tmp_path: Path):
        few = self.compute(Sample(workload, 0, 0, 7, Quantized()), tmp_path / "few")
        many = self.compute(Sample(workload, 0, 0, 130, Quantized()), tmp_path / "many")
        assert np.abs(few.astype(int) - many[:7]).max() <= 1

    def test_an_image_does_not_depend_on_its_shard(self, workload: Workload, tmp_path: Path):
        whole = self.compute(Sample(workload, 0, 0, 30, Quantized()), tmp_path / "whole")
        part = self.compute(Sample(workload, 0, 20, 30, Quantized()), tmp_path / "part")
        assert np.abs(whole[20:].astype(int) - part).max() <= 1

    def test_no_two_images_of_a_cell_are_the_same(self, workload: Workload, tmp_path: Path):
        found = self.compute(Sample(workload, 0, 0, 60, Quantized()), tmp_path / "cell")
        assert len({image.tobytes() for image in found}) == 60

    def test_another_seed_is_another_draw(self, workload: Workload, tmp_path: Path):
        first = self.compute(Sample(workload, 0, 0, 10, Quantized()), tmp_path / "first")
        second = self.compute(Sample(workload, 1, 0, 10, Quantized()), tmp_path / "second")
        assert not {image.tobytes() for image in first} & {image.tobytes() for image in second}


class TestNoise:
    @pytest.fixture
    def starts(self, fake_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[NDArray[np.float32]]]:
        """What the denoiser meets at the noise end, by batch size: 12 images are evaluated, 8 calibrate."""
        from micro_network import MicroDenoiser

        met: dict[int, list[NDArray[np.float32]]] = {}
        forward = MicroDenoiser.forward

        def watch(self: Any, x: torch.Tensor, timestep: torch.Tensor, return_dict: bool = False) -> Any:
            if int(timestep.min()) == 30:
                met.setdefault(len(x), []).append(x.numpy().copy())
            return forward(self, x, timestep, return_dict)

        monkeypatch.setattr(MicroDenoiser, "forward", watch)
        return met

    def test_no_evaluated_noise_was_calibration_noise(self):
        shape = (1, 8, 8)
        seen: set[bytes] = set()
        for seed in (0, 1, 2**63 - 1):
            for purpose in Purpose:
                for step in (-1, 0, 1, 2):
                    drawn = normal(shape, seed=seed, purpose=purpose, indices=range(100), step=step)
                    rows = {row.tobytes() for row in drawn}
                    assert len(rows) == 100
                    assert not rows & seen
                    seen |= rows

    def test_no_calibration_sample_starts_where_an_evaluated_one_does(
        self, plan: Callable[..., Plan], run: Callable[..., Store], starts: dict[int, list[NDArray[np.float32]]]
    ):
        run(plan(bits=["W4A8"]), "store")
        evaluated = {row.tobytes() for batch in starts[12] for row in batch}
        calibrated = {row.tobytes() for batch in starts[8] for row in batch}
        assert (len(evaluated), len(calibrated)) == (12, 8)
        assert not evaluated & calibrated

    def test_every_method_meets_the_noise_that_full_precision_met(
        self, plan: Callable[..., Plan], run: Callable[..., Store], starts: dict[int, list[NDArray[np.float32]]]
    ):
        run(plan(bits=["W4A32"], methods=["round", "linear"]), "store")
        # Each of three cells for its images; and both cells' curves, each for full precision and for its own.
        assert len(starts[12]) == 3 + 4
        assert len({batch.tobytes() for batch in starts[12]}) == 1
