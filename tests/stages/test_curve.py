"""The error at each step: closed forms, the loop by hand, and what must not make a difference."""

import json
from collections.abc import Callable, Mapping
from math import prod, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench import plugins
from qbench.bits import BitWidth
from qbench.diffusion.ddim import DDIM
from qbench.diffusion.noise import INITIAL, Purpose
from qbench.diffusion.samplers import Denoise, NoiseSource, StepContext
from qbench.errors import StageError
from qbench.plugin import create
from qbench.quant import AffineGrid, QuantModel, RunningMinMax, min_max_per_channel
from qbench.quant.packing import save_input_grids, save_weights
from qbench.stages import lockstep as module
from qbench.stages.curve import FILE, Curve
from qbench.stages.denoiser import INPUT_GRIDS, WEIGHTS, Denoiser, load_denoiser
from qbench.stages.lockstep import Squares, lockstep
from qbench.stages.quantized import Quantized
from qbench.stages.stage import Runtime, Work
from qbench.store import Artefact, Manifest
from qbench.workload import Workload

CPU = torch.device("cpu")
STEPS = 6
Compute = Callable[..., dict[str, Any]]
Quantize = Callable[..., Mapping[str, Artefact]]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Byte-for-byte equality is promised for one thread count."""


def make_micro(eta: float) -> Workload:
    return create(plugins.WORKLOADS, "micro", Workload, {"sampler": {"steps": STEPS, "eta": eta}}, str, ValueError)


@pytest.fixture
def micro(fake_plugins: Path) -> Workload:
    """The workload micro with 6 noisy steps."""
    return make_micro(eta=0.5)


@pytest.fixture
def quantize(micro: Workload, tmp_path: Path) -> Quantize:
    """Return a function that changes a model of micro and stores it as ``weights`` and ``activations``."""

    def quantize_one(change: Callable[[QuantModel], None], bits: str = "W4A32") -> Mapping[str, Artefact]:
        model = load_denoiser(micro, CPU, {}, BitWidth.parse(bits)).model
        change(model)
        save_weights(model, tmp_path / WEIGHTS)
        save_input_grids(model, tmp_path / INPUT_GRIDS)
        artefact = Artefact(tmp_path, Manifest("weights", "0" * 64, "", {}, {}, 0.0, 1.0, 0.0))
        return {"weights": artefact, "activations": artefact}

    return quantize_one


@pytest.fixture
def compute(micro: Workload, tmp_path: Path) -> Compute:
    """Return a function that computes a curve from artefacts and reads its file."""

    def compute_one(
        inputs: Mapping[str, Artefact], samples: int = 32, seed: int = 0, batch_size: int = 125
    ) -> dict[str, Any]:
        Curve(micro, seed, samples, Quantized()).compute(
            Work(inputs, tmp_path, Runtime("cpu", batch_size), lambda _: None)
        )
        found: dict[str, Any] = json.loads((tmp_path / FILE).read_text())
        return found

    return compute_one


def rounded_weights(model: QuantModel) -> None:
    for layer in model.layers.values():
        layer.weight_grid = min_max_per_channel(layer.weight, layer.bits.weights)


def rounded(model: QuantModel) -> None:
    """Round weights, and activations with the ranges that they have at the noise end."""
    rounded_weights(model)
    ranges = {name: RunningMinMax() for name in model.taps}
    noise = NoiseSource((1, 8, 8), 0, Purpose.CALIBRATION, range(16)).at(INITIAL, CPU)
    with model.observing(ranges.__getitem__), torch.no_grad():
        model(noise, torch.full((16,), 30))
    for name, tap in model.taps.items():
        tap.grid = ranges[name].grid(8)


def linear(factor: float) -> Denoise:
    return lambda x, step: factor * x


def run(full: Denoise, quantized: Denoise, workload: Workload, count: int = 5) -> Squares:
    noise = NoiseSource(workload.latent_shape, 0, Purpose.EVALUATION, range(count))
    return lockstep(full, quantized, DDIM(workload.schedule, workload.sampler), noise, CPU, lambda _: None)


def signal(workload: Workload) -> list[float]:
    """Return the signal level of each step, and 1 behind the last."""
    schedule = workload.schedule
    betas = torch.linspace(schedule.beta_start, schedule.beta_end, schedule.train_steps, dtype=torch.float64)
    levels = (1 - betas).cumprod(0)
    return [*(float(levels[each]) for each in DDIM(schedule, workload.sampler).timesteps), 1.0]


class TestClosedForms:
    """Denoisers that multiply x by a number."""

    def test_teacher_forced(self, micro: Workload):
        found = run(linear(0.5), linear(0.4), micro).teacher_forced
        assert found.shape == (STEPS, 2, 5)
        torch.testing.assert_close(found[:, 0] / found[:, 1], torch.full((STEPS, 5), 0.04))

    def test_free_running(self, fake_plugins: Path):
        """Without noise, DDIM multiplies by a number at each step too (arXiv 2010.02502, equation 12)."""
        workload = make_micro(eta=0)
        level = signal(workload)

        def factor(estimate: float, step: int) -> float:
            now, after = level[step], level[step + 1]
            return sqrt(after / now) * (1 - sqrt(1 - now) * estimate) + sqrt(1 - after) * estimate

        ratios = [prod(factor(0.4, step) / factor(0.5, step) for step in range(count)) for count in range(STEPS + 1)]
        found = run(linear(0.5), linear(0.4), workload).free_running
        assert found.shape == (STEPS + 1, 2, 5)
        expected = torch.tensor([(ratio - 1) ** 2 for ratio in ratios])[:, None].expand(-1, 5)
        torch.testing.assert_close(found[:, 0] / found[:, 1], expected, rtol=1e-3, atol=0)

    def test_the_first_steps_error_is_where_the_other_one_comes_from(self, micro: Workload, quantize: Quantize):
        """Behind the first step, x differs by what DDIM makes of the difference of the estimates, and nothing else."""
        inputs = quantize(rounded_weights)
        with torch.inference_mode():
            found = run(load_denoiser(micro, CPU, {}), load_denoiser(micro, CPU, inputs), micro)
        now, after = signal(micro)[:2]
        variance = micro.sampler.eta**2 * (1 - after) / (1 - now) * (1 - now / after)
        factor = sqrt(1 - after - variance) - sqrt(after * (1 - now) / now)
        assert (found.free_running[0, 0] == 0).all()
        torch.testing.assert_close(found.free_running[1, 0], factor**2 * found.teacher_forced[0, 0], rtol=1e-3, atol=0)

    def test_a_method_may_change_what_is_not_rounded(self, micro: Workload, quantize: Quantize, compute: Compute):
        """A bias that is shifted shifts the whole estimate; full precision keeps its own."""

        def shift(model: QuantModel) -> None:
            bias = model.layers["conv_out"].bias
            assert bias is not None
            bias.data += 0.25

        found = compute(quantize(shift), samples=5)
        full = load_denoiser(micro, CPU, {})
        with torch.inference_mode():
            noise = NoiseSource((1, 8, 8), 0, Purpose.EVALUATION, range(5)).at(INITIAL, CPU)
            norms = full(noise, StepContext(0, 30)).square().flatten(1).sum(dim=1)
        assert found["teacher_forced"][0] == pytest.approx(64 * 0.25**2 / float(norms.median()), rel=1e-4)


def by_hand(workload: Workload, inputs: Mapping[str, Artefact], samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Run both samplers one after the other, the second one beside the first one's trajectory."""
    sampler = DDIM(workload.schedule, workload.sampler)
    full, quantized = load_denoiser(workload, CPU, {}), load_denoiser(workload, CPU, inputs)
    noise = NoiseSource(workload.latent_shape, seed, Purpose.EVALUATION, range(samples))

    def trajectory(denoiser: Denoiser) -> list[Tensor]:
        path = [noise.at(INITIAL, CPU)]
        for index, timestep in enumerate(sampler.timesteps):
            estimate = denoiser(path[-1], StepContext(index, int(timestep)))
            path.append(sampler.step(path[-1], estimate, index, noise))
        return path

    def error(expected: Tensor, found: Tensor) -> Tensor:
        difference, value = ((each**2).sum(dim=(1, 2, 3)) for each in (found - expected, expected))
        return (difference / value).quantile(0.5)

    with torch.inference_mode():
        ours, theirs = trajectory(full), trajectory(quantized)
        steps = [StepContext(index, int(timestep)) for index, timestep in enumerate(sampler.timesteps)]
        forced = [error(full(x, step), quantized(x, step)) for x, step in zip(ours, steps, strict=False)]
        free = [error(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    return torch.stack(forced), torch.stack(free)


class TestTheFile:
    @pytest.mark.parametrize("samples", [1, 7, 32])
    def test_it_says_what_the_loop_by_hand_says(
        self, micro: Workload, quantize: Quantize, compute: Compute, samples: int
    ):
        inputs = quantize(rounded, "W4A8")
        found = compute(inputs, samples, seed=3)
        forced, free = by_hand(micro, inputs, samples, seed=3)
        assert found["teacher_forced"] == pytest.approx(forced.tolist(), rel=1e-3)
        assert found["free_running"] == pytest.approx(free.tolist(), rel=1e-3)
        assert 0 < min(found["teacher_forced"]) < max(found["teacher_forced"]) < 1

    def test_steps_are_counted_from_the_noise_end(self, quantize: Quantize, compute: Compute):
        found = compute(quantize(rounded_weights), samples=4)
        assert list(found) == ["samples", "step_index", "timestep", "teacher_forced", "free_running"]
        assert found["samples"] == 4
        assert found["step_index"] == [0, 1, 2, 3, 4, 5]
        assert found["timestep"] == [30, 24, 18, 12, 6, 0]
        assert (len(found["teacher_forced"]), len(found["free_running"])) == (6, 7)
        assert found["free_running"][0] == 0

    @pytest.mark.parametrize(
        ("change", "bits", "tolerance"), [(rounded_weights, "W4A32", 1e-4), (rounded, "W4A8", 0.02)]
    )
    def test_the_batch_size_makes_no_difference(
        self, quantize: Quantize, compute: Compute, change: Any, bits: str, tolerance: float
    ):
        inputs = quantize(change, bits)
        whole = compute(inputs)
        for batch_size in (1, 13):
            part = compute(inputs, batch_size=batch_size)
            for name in ("teacher_forced", "free_running"):
                assert part[name] == pytest.approx(whole[name], rel=tolerance)

    def test_the_denoisers_are_called_three_times_at_a_step(
        self, quantize: Quantize, compute: Compute, monkeypatch: pytest.MonkeyPatch
    ):
        """In front of the first step both hold the same noise, which needs no third call."""
        seen: list[int] = []
        call = Denoiser.__call__

        def watch(self: Denoiser, x: Tensor, step: StepContext) -> Tensor:
            seen.append(len(x))
            return call(self, x, step)

        monkeypatch.setattr(Denoiser, "__call__", watch)
        compute(quantize(rounded_weights))
        assert seen == [32] * (3 * STEPS - 1)


class TestNoError:
    def test_a_method_that_sets_no_grid_has_none(self, quantize: Quantize, compute: Compute):
        found = compute(quantize(lambda model: None))
        assert found["teacher_forced"] == [0] * STEPS
        assert found["free_running"] == [0] * (STEPS + 1)

    def test_nor_have_weights_that_lie_on_their_grid(
        self, quantize: Quantize, compute: Compute, monkeypatch: pytest.MonkeyPatch
    ):
        from micro_network import MicroDenoiser

        make = MicroDenoiser.__init__

        def make_on_grid(self: MicroDenoiser, *arguments: Any) -> None:
            make(self, *arguments)
            for parameter in self.parameters():
                parameter.data = (parameter.data * 64).round().clamp(-128, 127) / 64

        def on_grid(model: QuantModel) -> None:
            for layer in model.layers.values():
                layer.weight_grid = AffineGrid(8, torch.tensor(1 / 64), torch.tensor(128.0))

        monkeypatch.setattr(MicroDenoiser, "__init__", make_on_grid)
        found = compute(quantize(on_grid, "W8A32"))
        assert found["teacher_forced"] == [0] * STEPS
        assert found["free_running"] == [0] * (STEPS + 1)


class TestRefusals:
    def test_an_output_that_is_not_finite(self, quantize: Quantize, compute: Compute):
        def broken(model: QuantModel) -> None:
            bias = model.layers["conv_out"].bias
            assert bias is not None
            bias.data.fill_(float("nan"))

        with pytest.raises(StageError, match=r"not finite, first at step 0 of 6 \(sample 0\)"):
            compute(quantize(broken))

    @pytest.mark.parametrize(
        ("place", "words"),
        [
            (
                ("teacher_forced", 2, 0),
                r"teacher-forced error is not finite, first at step 2 of 6 \(sample 1: inf / 1\)",
            ),
            (
                ("teacher_forced", 2, 1),
                r"teacher-forced error is not finite, first at step 2 of 6 \(sample 1: 1 / inf\)",
            ),
            (("free_running", 6, 0), r"free-running error is not finite, first behind the last of 6 steps \(sample 1"),
        ],
    )
    def test_an_error_that_is_not_finite(
        self, compute: Compute, monkeypatch: pytest.MonkeyPatch, place: tuple[str, int, int], words: str
    ):
        def squares(*_: object) -> Squares:
            found = {"teacher_forced": torch.ones(6, 2, 3), "free_running": torch.ones(7, 2, 3)}
            found[place[0]][place[1], place[2], 1] = float("inf")
            return Squares(**found)

        monkeypatch.setattr(module, "lockstep", squares)
        with pytest.raises(StageError, match=words):
            compute({}, samples=3)

    def test_full_precision_that_says_nothing_has_no_relative_error(
        self, compute: Compute, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(Denoiser, "__call__", lambda self, x, step: torch.zeros_like(x))
        with pytest.raises(StageError, match=r"teacher-forced error is not finite, first at step 0 of 6 .*0 / 0"):
            compute({})


def test_stages_that_cost_otherwise_are_in_another_group(micro: Workload):
    assert Curve(micro, 0, 32, Quantized()).group == "micro plain activations"
    assert Curve(micro, 0, 32, Quantized()).work == 32 * STEPS
