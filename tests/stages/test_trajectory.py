"""The stage seen from outside: what lies in its file, and what decides its address."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qbench import plugins
from qbench.calibration import (
    CalibrationRequest,
    GaussianInputs,
    NoisedImages,
    NormalSteps,
    Request,
    SingleStep,
    UniformSteps,
)
from qbench.diffusion.codecs import from_uint8
from qbench.diffusion.ddim import DDIM
from qbench.diffusion.noise import INITIAL, Choice, Purpose, normal, uniform
from qbench.diffusion.samplers import NoiseSource, StepContext, sample
from qbench.errors import DataError, StageError
from qbench.plan import make_plan
from qbench.plugin import create
from qbench.stages.denoiser import load_denoiser
from qbench.stages.stage import Runtime, Work
from qbench.stages.trajectory import FILE, Trajectory
from qbench.suite import load_suite
from qbench.workload import ImageSet, Workload

CPU = torch.device("cpu")
WALKS: tuple[CalibrationRequest, ...] = (
    UniformSteps(steps=3, per_step=20),
    SingleStep(step="first", count=20),
    SingleStep(step="middle", count=20),
    SingleStep(step="last", count=20),
    NormalSteps(count=60),
)
REQUESTS = (*WALKS, GaussianInputs(count=40), NoisedImages(count=40))
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)


def name(value: object) -> str | None:
    if isinstance(value, SingleStep):
        return f"{value.kind}-{value.step}"
    return value.kind if isinstance(value, Request) else None


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Byte-for-byte equality is promised for one thread count."""


@pytest.fixture
def micro(fake_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """The workload micro with 6 noisy steps and 64 real images."""
    import micro_plugins

    images = ImageSet("random images", len(PIXELS), "0" * 64, lambda indices: PIXELS[list(indices)])
    monkeypatch.setattr(micro_plugins.Micro, "calibration_images", lambda _: images)
    return create(plugins.WORKLOADS, "micro", Workload, {"sampler": {"steps": 6, "eta": 0.5}}, str, ValueError)


@dataclass(frozen=True)
class Computed:
    content: bytes
    x: Tensor
    step_index: Tensor
    timestep: Tensor
    reported: float


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Computed]:
    """Return a function that computes a stage with a batch size and reads its file."""
    count = 0

    def compute_one(stage: Trajectory, batch_size: int = 125) -> Computed:
        nonlocal count
        count += 1
        folder = tmp_path / f"artefact-{count}"
        folder.mkdir()
        reported: list[float] = []
        stage.compute(Work({}, folder, Runtime("cpu", batch_size), reported.append))
        found = load_file(folder / FILE)
        assert found.keys() == {"x", "step_index", "timestep"}
        return Computed((folder / FILE).read_bytes(), **found, reported=sum(reported))

    return compute_one


def plain_run(workload: Workload, seed: int, count: int) -> list[Tensor]:
    """Return x_t [count, *latent shape] at every step of the calibration samples, all in one batch."""
    seen: list[Tensor] = []
    noise = NoiseSource(workload.latent_shape, seed, Purpose.CALIBRATION, range(count))
    with torch.inference_mode():
        sample(
            load_denoiser(workload, CPU, {}),
            DDIM(workload.schedule, workload.sampler),
            noise,
            CPU,
            lambda _, x: seen.append(x.clone()),
        )
    return seen


def steps_by_hand(request: CalibrationRequest, seed: int, sampling_steps: int) -> list[list[int]]:
    draws = uniform(seed=seed, choice=Choice.CALIBRATION_STEP, indices=range(request.samples))
    return [request.steps_of(float(draw), sampling_steps) for draw in draws]


def rows_by_hand(request: CalibrationRequest, seed: int, sampling_steps: int) -> list[tuple[int, int]]:
    steps = steps_by_hand(request, seed, sampling_steps)
    return [(k, index) for k in range(sampling_steps) for index, each in enumerate(steps) if k in each]


class TestTheFile:
    @pytest.mark.parametrize("asked", REQUESTS, ids=name)
    def test_rows_lie_by_step_and_then_by_sample(
        self, micro: Workload, compute: Callable[..., Computed], asked: CalibrationRequest
    ):
        stage = Trajectory(micro, asked, seed=3)
        found = compute(stage)
        rows = rows_by_hand(asked, 3, 6)
        assert found.step_index.tolist() == [step for step, _ in rows]
        assert found.timestep.tolist() == [[30, 24, 18, 12, 6, 0][step] for step, _ in rows]
        assert found.x.shape == (stage.size, 1, 8, 8)
        assert len(rows) == stage.size == asked.size(6)
        assert (found.x.dtype, found.step_index.dtype, found.timestep.dtype) == (
            torch.float32,
            torch.int64,
            torch.int64,
        )

    @pytest.mark.parametrize("asked", WALKS, ids=name)
    def test_a_row_is_what_a_plain_run_of_the_sampler_comes_to(
        self, micro: Workload, compute: Callable[..., Computed], asked: CalibrationRequest
    ):
        found = compute(Trajectory(micro, asked, seed=3), batch_size=7)
        expected = plain_run(micro, 3, asked.samples)
        for row, (step, index) in enumerate(rows_by_hand(asked, 3, 6)):
            torch.testing.assert_close(found.x[row], expected[step][index], rtol=0, atol=1e-4)

    @pytest.mark.parametrize("asked", REQUESTS, ids=name)
    def test_it_does_not_depend_on_the_batch_size(
        self, micro: Workload, compute: Callable[..., Computed], asked: CalibrationRequest
    ):
        stage = Trajectory(micro, asked, seed=1)
        whole = compute(stage, 125)
        assert compute(replace(stage), 125).content == whole.content
        for batch_size in (1, 9):
            found = compute(stage, batch_size)
            assert torch.equal(found.step_index, whole.step_index)
            assert torch.equal(found.timestep, whole.timestep)
            torch.testing.assert_close(found.x, whole.x, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("asked", REQUESTS, ids=name)
    def test_fewer_samples_are_the_first_of_more(
        self, micro: Workload, compute: Callable[..., Computed], asked: CalibrationRequest
    ):
        field = "per_step" if isinstance(asked, UniformSteps) else "count"
        fewer = asked.model_copy(update={field: 10})
        many, few = (compute(Trajectory(micro, each, seed=2)) for each in (asked, fewer))
        places = {place: row for row, place in enumerate(rows_by_hand(asked, 2, 6))}
        rows = [places[place] for place in rows_by_hand(fewer, 2, 6)]
        torch.testing.assert_close(few.x, many.x[rows], rtol=0, atol=1e-4)

    @pytest.mark.parametrize("asked", REQUESTS, ids=name)
    def test_another_seed_is_another_set(
        self, micro: Workload, compute: Callable[..., Computed], asked: CalibrationRequest
    ):
        first, second = (compute(Trajectory(micro, asked, seed)) for seed in (0, 1))
        assert not {row.numpy().tobytes() for row in first.x} & {row.numpy().tobytes() for row in second.x}

    @pytest.mark.parametrize("asked", [SingleStep(step="first", count=30), GaussianInputs(count=30)], ids=name)
    def test_no_noise_is_that_of_an_evaluated_image(
        self, micro: Workload, compute: Callable[..., Computed], asked: CalibrationRequest
    ):
        found = compute(Trajectory(micro, asked, seed=0))
        evaluated = normal((1, 8, 8), seed=0, purpose=Purpose.EVALUATION, indices=range(30))
        assert not {row.numpy().tobytes() for row in found.x} & {row.tobytes() for row in evaluated}


class TestWork:
    @pytest.mark.parametrize("batch_size", [1, 7, 125])
    @pytest.mark.parametrize("asked", REQUESTS, ids=name)
    def test_all_of_it_is_reported(
        self, micro: Workload, compute: Callable[..., Computed], asked: CalibrationRequest, batch_size: int
    ):
        stage = Trajectory(micro, asked, seed=0)
        assert compute(stage, batch_size).reported == stage.work

    @pytest.mark.parametrize(
        ("asked", "calls"),
        [
            (SingleStep(step="first", count=20), []),
            (SingleStep(step="middle", count=20), [0, 1, 2] * 2),
            (UniformSteps(steps=2, per_step=20), [0, 1, 2] * 2),
            (GaussianInputs(count=20), []),
            (NoisedImages(count=20), []),
        ],
        ids=name,
    )
    def test_the_denoiser_is_called_as_long_as_it_is_needed(
        self,
        micro: Workload,
        compute: Callable[..., Computed],
        monkeypatch: pytest.MonkeyPatch,
        asked: CalibrationRequest,
        calls: list[int],
    ):
        from qbench.stages.denoiser import Denoiser

        seen: list[int] = []
        call = Denoiser.__call__

        def watch(self: Denoiser, x: Tensor, step: StepContext) -> Tensor:
            seen.append(step.step_index)
            return call(self, x, step)

        monkeypatch.setattr(Denoiser, "__call__", watch)
        compute(Trajectory(micro, asked, seed=0), batch_size=10)
        assert seen == calls

    def test_samples_that_end_early_do_not_wait_for_the_others(
        self, micro: Workload, compute: Callable[..., Computed], monkeypatch: pytest.MonkeyPatch
    ):
        from qbench.stages.denoiser import Denoiser

        rows = 0
        call = Denoiser.__call__

        def watch(self: Denoiser, x: Tensor, step: StepContext) -> Tensor:
            nonlocal rows
            rows += len(x)
            return call(self, x, step)

        monkeypatch.setattr(Denoiser, "__call__", watch)
        request = NormalSteps(count=60)
        compute(Trajectory(micro, request, seed=0), batch_size=1)
        assert rows == sum(step for (step,) in steps_by_hand(request, 0, 6))

    def test_stages_that_cost_otherwise_are_in_another_group(self, micro: Workload):
        groups = [Trajectory(micro, request, 0).group for request in REQUESTS]
        assert groups == ["micro"] * 5 + ["micro from noise", "micro from images"]


class TestGaussianInputs:
    def test_x_is_the_noise_that_sampling_starts_from(self, micro: Workload, compute: Callable[..., Computed]):
        found = compute(Trajectory(micro, GaussianInputs(count=200), seed=4))
        samples = [index for _, index in rows_by_hand(GaussianInputs(count=200), 4, 6)]
        expected = normal((1, 8, 8), seed=4, purpose=Purpose.CALIBRATION, indices=samples, step=INITIAL)
        np.testing.assert_array_equal(found.x.numpy(), expected)
        assert set(found.step_index.tolist()) == set(range(6))


class TestNoisedImages:
    def order(self, seed: int) -> list[int]:
        """The real images by their random keys: sample i gets the i-th."""
        keys = uniform(seed=seed, choice=Choice.CALIBRATION_IMAGE, indices=range(64))
        return sorted(range(64), key=keys.__getitem__)

    def test_x_is_drawn_from_the_forward_process(self, micro: Workload, compute: Callable[..., Computed]):
        request = NoisedImages(count=40)
        found = compute(Trajectory(micro, request, seed=4), batch_size=9)
        betas = np.linspace(1e-4, 0.02, 40)
        alphas = np.cumprod(1 - betas)
        order = self.order(4)
        for row, (step, index) in enumerate(rows_by_hand(request, 4, 6)):
            alpha = float(alphas[[30, 24, 18, 12, 6, 0][step]])
            noise = normal((1, 8, 8), seed=4, purpose=Purpose.CALIBRATION, indices=[index])[0]
            clean = PIXELS[order[index]] / 127.5 - 1
            expected = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
            np.testing.assert_allclose(found.x[row].numpy(), expected, atol=1e-5)

    def test_no_image_is_used_twice_and_another_seed_chooses_others(self):
        assert sorted(self.order(0)) == list(range(64))
        assert set(self.order(0)[:20]) != set(self.order(1)[:20])

    def test_all_images_can_be_asked_for(self, micro: Workload, compute: Callable[..., Computed]):
        assert compute(Trajectory(micro, NoisedImages(count=64), seed=0)).x.shape == (64, 1, 8, 8)

    def test_more_than_there_are_is_one_sentence(self, micro: Workload):
        with pytest.raises(
            DataError,
            match=r"^the workload 'micro' has 64 real images to calibrate on and the calibration 'noised-images' "
            r"asks for 65: ask for fewer$",
        ):
            _ = Trajectory(micro, NoisedImages(count=65), seed=0).digest

    def test_a_workload_without_images_says_so_before_any_work(self, micro_suite: Callable[..., Path]):
        method = {"name": "round", "settings": {}}
        suite = load_suite(micro_suite(methods=[method], bits=["W4A8"]))
        workload = suite.cells[0].workload
        with pytest.raises(
            DataError,
            match=r"^the workload 'micro' has no real images to calibrate on, so the calibration 'noised-images' "
            r"cannot be made$",
        ):
            _ = Trajectory(workload, NoisedImages(), seed=0).digest

    @pytest.mark.parametrize("wrong", [PIXELS.astype(np.float32), PIXELS[:, :, :4], PIXELS[:, 0]])
    def test_images_of_another_make_are_refused(
        self, micro: Workload, compute: Callable[..., Computed], monkeypatch: pytest.MonkeyPatch, wrong: Any
    ):
        images = replace(micro.calibration_images(), read=lambda indices: wrong[list(indices)])
        monkeypatch.setattr(type(micro), "calibration_images", lambda _: images)
        with pytest.raises(DataError, match=r"random images: expected uint8 images \(4, 1, 8, 8\), found "):
            compute(Trajectory(micro, NoisedImages(count=4), seed=0))

    def test_a_codec_that_gives_no_numbers_is_noticed(
        self, micro: Workload, compute: Callable[..., Computed], monkeypatch: pytest.MonkeyPatch
    ):
        from micro_network import Identity

        rows = rows_by_hand(NoisedImages(count=20), 0, 6)
        step, index = rows[11]
        spoilt = from_uint8(torch.from_numpy(PIXELS[self.order(0)[index]]))

        def encode(self: Identity, images: Tensor) -> Tensor:
            return torch.where((images == spoilt).all(dim=(1, 2, 3), keepdim=True), float("nan"), images)

        monkeypatch.setattr(Identity, "encode", encode)
        with pytest.raises(StageError, match=rf"not finite, first at step {step} of 6 \(sample {index}\)"):
            compute(Trajectory(micro, NoisedImages(count=20), seed=0))

    def test_tiny_ddim_has_images(self, compute: Callable[..., Computed]):
        workload = create(plugins.WORKLOADS, "tiny-ddim", Workload, {}, str, ValueError)
        found = compute(Trajectory(workload, NoisedImages(count=128), seed=0))
        last = found.x[found.step_index == 19]
        assert len(last) > 0
        decoded = torch.nn.functional.pixel_shuffle(last, 2)
        shipped = workload.calibration_images().read(range(1024))
        distances = (decoded[:, None] - from_uint8(torch.from_numpy(shipped))[None]).square().mean(dim=(2, 3, 4))
        assert distances.amin(dim=1).max() < 0.001  # noise of 1 % is on them at timestep 0
        levels = [float(found.x[found.step_index == step].std()) for step in (0, 10, 19)]
        assert levels[0] == pytest.approx(1, abs=0.1)


class TestTheAddress:
    def test_parameters_of_requests_without_images_are_these_and_no_others(self, micro: Workload):
        """More would throw away every trajectory that was ever computed."""
        found = Trajectory(micro, UniformSteps(steps=3, per_step=20), seed=5).parameters()
        assert found == {
            "workload": micro.describe(),
            "request": {"kind": "uniform-steps", "steps": 3, "per_step": 20},
            "seed": 5,
        }
        for request in REQUESTS[:-1]:
            assert Trajectory(micro, request, seed=5).parameters().keys() == found.keys()

    def test_real_images_enter_by_their_digest(self, micro: Workload, monkeypatch: pytest.MonkeyPatch):
        stage = Trajectory(micro, NoisedImages(count=8), seed=0)
        assert stage.parameters()["images"] == "0" * 64
        others = replace(micro.calibration_images(), digest="1" * 64)
        before = stage.digest, Trajectory(micro, GaussianInputs(count=8), seed=0).digest
        monkeypatch.setattr(type(micro), "calibration_images", lambda _: others)
        after = replace(stage).digest, Trajectory(micro, GaussianInputs(count=8), seed=0).digest
        assert before[0] != after[0]
        assert before[1] == after[1]

    def test_every_askedhas_its_own(self, micro: Workload):
        assert len({Trajectory(micro, request, 0).digest for request in REQUESTS}) == len(REQUESTS)

    def test_a_suite_names_the_kind(self, micro_suite: Callable[..., Path]):
        def settings(**calibration: Any) -> dict[str, Any]:
            return {"name": "linear", "settings": {"calibration": calibration}}

        methods = [
            settings(kind="normal-steps", count=9) | {"as": "normal"},
            settings(kind="single-step", step="middle") | {"as": "single"},
            settings(per_step=4) | {"as": "uniform"},
        ]
        plan = make_plan(load_suite(micro_suite(methods=methods, bits=["W4A8"])))
        found = [stage.request for stage in plan.stages.values() if isinstance(stage, Trajectory)]
        assert found == [NormalSteps(count=9), SingleStep(step="middle"), UniformSteps(per_step=4)]
