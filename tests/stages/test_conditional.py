"""A workload with captions on its way through all stages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qbench import plugins
from qbench.bits import BitWidth
from qbench.calibration import CalibrationRequest, GaussianInputs, NormalSteps, UniformSteps
from qbench.diffusion.noise import INITIAL, Purpose
from qbench.diffusion.samplers import NoiseSource, make_sampler, sample
from qbench.errors import DataError, StageError
from qbench.plugin import create
from qbench.quant.data import CalibrationData
from qbench.quant.model import QuantModel
from qbench.stages.calibration_context import conditioned_rows
from qbench.stages.curve import Curve
from qbench.stages.denoiser import load_denoiser
from qbench.stages.quantized import Quantized
from qbench.stages.sample import FILE, Sample
from qbench.stages.stage import Runtime, Work
from qbench.stages.trajectory import FILE as TRAJECTORY_FILE
from qbench.stages.trajectory import Trajectory
from qbench.workload import Workload

CPU = torch.device("cpu")
SCALE = 4.0
GUIDED = {"steps": 3, "guidance_scale": SCALE}
UNGUIDED = {"steps": 3}
Make = Callable[..., Workload]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Equality is promised for one thread count."""


@pytest.fixture
def make(fake_plugins: Path, install: Callable[..., None]) -> Make:
    """Return a function that makes the workload with captions with a sampler."""
    install("microtext", "[qbench.workloads]\nmicro-text = micro_text:MicroText\n", {})

    def make_one(sampler: dict[str, Any] = GUIDED, name: str = "micro-text") -> Workload:
        return create(plugins.WORKLOADS, name, Workload, {"sampler": sampler}, str, ValueError)

    return make_one


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that computes a stage without inputs and returns its folder."""

    def compute_one(stage: Any, batch_size: int = 125) -> Path:
        folder = tmp_path / f"artefact-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        reported: list[float] = []
        stage.compute(Work({}, folder, Runtime("cpu", batch_size), reported.append))
        assert sum(reported) == stage.work
        return folder

    return compute_one


def by_hand(workload: Workload, index: int, caption: str) -> Tensor:
    """Return one sample's latent by two calls of the bare UNet for each step."""
    loaded = workload.load()
    assert loaded.conditioning is not None
    scale = workload.sampler.guidance_scale
    sampler = make_sampler(workload.schedule, workload.sampler)
    noise = NoiseSource(workload.latent_shape, 0, Purpose.EVALUATION, [index])
    run = sampler.start()
    x = run.initial(noise.at(INITIAL, CPU))
    for step, timestep in enumerate(sampler.timesteps.tolist()):
        found, given = [], run.model_input(x, step)
        for each in ("", caption):
            told = loaded.conditioning([each])["encoder_hidden_states"]
            found.append(loaded.module(given, timestep, told).sample)
        x = run.step(x, found[0] + scale * (found[1] - found[0]), step, noise)
    return x


def latents(workload: Workload, indices: range) -> Tensor:
    denoise = load_denoiser(workload, CPU, {}).conditioned(lambda: workload.captions(indices))
    noise = NoiseSource(workload.latent_shape, 0, Purpose.EVALUATION, indices)
    return sample(denoise, make_sampler(workload.schedule, workload.sampler), noise, CPU)


@pytest.mark.parametrize(
    "sampler", [GUIDED, UNGUIDED, {**GUIDED, "name": "plms"}, {**GUIDED, "name": "euler"}], ids=str
)
@torch.inference_mode()
def test_samples_are_guided_by_their_captions(make: Make, sampler: dict[str, Any]) -> None:
    import micro_text

    workload = make(sampler)
    together = latents(workload, range(5))
    for index in range(5):
        expected = by_hand(workload, index, micro_text.CAPTIONS[index % 3])
        torch.testing.assert_close(together[index : index + 1], expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_two_captions_give_two_images_and_guidance_a_third(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import micro_text

    coat = latents(make(), range(1))
    weak = latents(make(UNGUIDED), range(1))
    monkeypatch.setattr(micro_text.MicroText, "captions", lambda self, indices: ["two shoes" for _ in indices])
    shoes = latents(make(), range(1))
    for one, other in ((coat, shoes), (coat, weak), (shoes, weak)):
        assert float((one - other).abs().max()) > 1e-3


def test_the_partition_into_batches_does_not_matter(make: Make, compute: Callable[..., Path]) -> None:
    stage = Sample(make(), 0, 2, 9, Quantized())
    one, other = (np.load(compute(stage, size) / FILE).astype(int) for size in (125, 2))
    assert one.shape == (7, 1, 8, 8)
    assert np.abs(one - other).max() <= 1
    assert (one != other).mean() < 0.01
    with torch.inference_mode():
        parts = [latents(make(), range(start, start + 2)) for start in (0, 2, 4)]
        torch.testing.assert_close(latents(make(), range(6)), torch.cat(parts), rtol=1e-4, atol=1e-4)


def test_context_is_asked_for_once_for_a_batch(make: Make, compute: Callable[..., Path], monkeypatch: Any) -> None:
    import micro_text

    asked: list[list[str]] = []
    monkeypatch.setattr(micro_text.Words, "__init__", lambda self: setattr(self, "asked", asked))
    compute(Sample(make(), 0, 0, 4, Quantized()), 2)
    assert asked == [["a red coat", "two shoes"], [""], ["a bag", "a red coat"], [""]]


@pytest.mark.parametrize(
    "request_", [UniformSteps(steps=2, per_step=3), NormalSteps(count=5), GaussianInputs(count=4)], ids=lambda x: x.kind
)
@pytest.mark.parametrize("sampler", [GUIDED, UNGUIDED, {**GUIDED, "name": "plms"}], ids=str)
def test_calibration_holds_each_row_with_its_caption_and_without(
    make: Make, compute: Callable[..., Path], request_: CalibrationRequest, sampler: dict[str, Any]
) -> None:
    import micro_text

    workload = make(sampler)
    stage = Trajectory(workload, request_, seed=1)
    found = load_file(compute(stage, 2) / TRAJECTORY_FILE)
    rows, context = conditioned_rows(found)
    samples = [index for _, index in sorted((step, index) for index, each in enumerate(stage.steps) for step in each)]
    captions = [workload.calibration_captions(range(request_.samples))[index] for index in samples]
    is_guided = "guidance_scale" in sampler
    assert len(found["x"]) == stage.size
    assert len(found["context.encoder_hidden_states"]) == len(set(captions)) + is_guided
    expected = [each for caption in captions for each in ([caption, ""] if is_guided else [caption])]
    told = micro_text.Words()(expected)["encoder_hidden_states"]
    assert torch.equal(context["encoder_hidden_states"], told)
    assert all(len(each) == len(expected) for each in rows.values())
    for name, each in rows.items():
        assert torch.equal(each[:: 1 + is_guided], found[name])
        assert torch.equal(each[is_guided :: 1 + is_guided], found[name])


def test_calibration_is_what_the_denoiser_is_given(make: Make, compute: Callable[..., Path]) -> None:
    """By Euler, whose own x is another; on calibration noise and captions."""
    workload = make({**GUIDED, "name": "euler"})
    found = load_file(compute(Trajectory(workload, UniformSteps(steps=3, per_step=4), seed=1)) / TRAJECTORY_FILE)
    seen: list[Tensor] = []
    noise = NoiseSource(workload.latent_shape, 1, Purpose.CALIBRATION, range(4))
    sampler = make_sampler(workload.schedule, workload.sampler)
    with torch.inference_mode():
        denoise = load_denoiser(workload, CPU, {}).conditioned(lambda: workload.calibration_captions(range(4)))
        sample(denoise, sampler, noise, CPU, lambda _, x: seen.append(x.clone()))
    torch.testing.assert_close(found["x"], torch.cat(seen), rtol=1e-5, atol=1e-5)
    assert found["timestep"].tolist() == [each for each in sampler.timesteps.tolist() for _ in range(4)]


def test_captions_are_in_the_address_of_what_depends_on_them(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import micro_text

    def digests() -> tuple[str, str, str, str]:
        workload = make()
        stages = (
            Sample(workload, 0, 0, 2, Quantized()),
            Sample(workload, 0, 2, 4, Quantized()),
            Curve(workload, 0, 2, Quantized()),
            Trajectory(workload, NormalSteps(count=3), 0),
        )
        assert all("captions" in stage.parameters() for stage in stages)
        return tuple(stage.digest for stage in stages)

    before = digests()
    monkeypatch.setattr(micro_text, "CAPTIONS", (*micro_text.CAPTIONS[:2], "another bag"))
    after = digests()
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]
    monkeypatch.setattr(micro_text.MicroText, "calibration_captions", lambda self, indices: ["x" for _ in indices])
    assert [one == other for one, other in zip(after, digests(), strict=True)] == [True, True, True, False]


def test_a_workload_without_captions_says_nothing_of_them(make: Make) -> None:
    plain = make(UNGUIDED, "micro")
    for stage in (Sample(plain, 0, 0, 2, Quantized()), Trajectory(plain, NormalSteps(count=3), 0)):
        assert "captions" not in stage.parameters()
    assert load_denoiser(plain, CPU, {}).conditioned(lambda: pytest.fail("nobody needs captions")) is not None


def test_guidance_without_captions_is_refused(make: Make) -> None:
    with pytest.raises(StageError, match="'micro' samples without captions, so a guidance_scale of 4 has nothing to"):
        load_denoiser(make(GUIDED, "micro"), CPU, {})


def test_captions_that_are_missing_are_told(make: Make, compute: Callable[..., Path], monkeypatch: Any) -> None:
    import micro_text

    def missing(self: object, indices: range) -> None:
        raise DataError("the file of captions is missing")

    monkeypatch.setattr(micro_text.MicroText, "captions", missing)
    monkeypatch.setattr(micro_text.MicroText, "calibration_captions", missing)
    for stage in (Sample(make(), 0, 0, 2, Quantized()), Trajectory(make(), GaussianInputs(count=3), 0)):
        with pytest.raises(DataError, match="the file of captions is missing"):
            compute(stage)


def test_a_suite_runs_through_all_stages(
    make: Make, qbench: Callable[..., Any], micro_suite: Callable[..., Path], workplace: Path, monkeypatch: Any
) -> None:
    import micro_plugins

    seen: list[CalibrationData] = []
    quantize = micro_plugins.Round.quantize_activations

    def watch(self: Any, model: QuantModel, data: CalibrationData, bits: BitWidth) -> None:
        seen.append(data)
        quantize(self, model, data, bits)

    monkeypatch.setattr(micro_plugins.Round, "quantize_activations", watch)
    path = micro_suite(workloads=[{"name": "micro-text", "sampler": GUIDED}], samples=4)
    assert qbench("run", path).code == 0
    records = [json.loads(each.read_text()) for each in (workplace / "results").rglob("records/*.json")]
    assert {record["status"] for record in records} == {"complete"}
    (data,) = seen
    assert len(data) == 2 * 2 * 8
    assert data.context["encoder_hidden_states"].shape == (32, 3, 6)
    assert qbench("check", path).code == 0
