import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from statistics import NormalDist
from typing import get_args

import pytest
from pydantic import Field, TypeAdapter, ValidationError

import qbench.method
from qbench.calibration import (
    CalibrationRequest,
    GaussianInputs,
    NoisedImages,
    NormalSteps,
    OneStepEach,
    Request,
    SingleStep,
    UniformSteps,
)
from qbench.diffusion.noise import Choice, uniform

KINDS: tuple[type[Request], ...] = (UniformSteps, SingleStep, NormalSteps, GaussianInputs, NoisedImages)
DRAWS = 20_000
CHI_SQUARE_19 = 43.82
"""One in a thousand lies above, at 19 degrees of freedom."""


@cache
def draws(seed: int = 0, count: int = DRAWS) -> list[float]:
    return uniform(seed=seed, choice=Choice.CALIBRATION_STEP, indices=range(count)).tolist()


def chi_square(steps: list[int], probabilities: list[float]) -> float:
    expected = [len(steps) * each for each in probabilities]
    return sum((steps.count(step) - each) ** 2 / each for step, each in enumerate(expected))


class TestTheUnion:
    @pytest.mark.parametrize("model", KINDS)
    def test_kind_tells_which(self, model: type[Request]):
        request = model()  # type: ignore[call-arg]
        plain = request.model_dump(mode="json")
        assert TypeAdapter(CalibrationRequest).validate_python(plain) == request
        assert plain["kind"] == request.kind
        assert next(iter(plain)) == "kind"

    def test_it_has_all_kinds_and_the_contract_offers_them(self):
        union, tag = get_args(CalibrationRequest)
        assert get_args(union) == KINDS
        assert tag.discriminator == Field(discriminator="kind").discriminator
        assert {model.__name__ for model in KINDS} < set(qbench.method.__all__)
        assert all(getattr(qbench.method, model.__name__) is model for model in KINDS)

    @pytest.mark.parametrize("model", KINDS)
    def test_every_field_is_described_and_every_kind_has_its_source(self, model: type[Request]):
        assert all(field.description and not field.is_required() for field in model.model_fields.values())
        assert "arXiv" in (model.__doc__ or "")

    @pytest.mark.parametrize(
        ("model", "values"),
        [
            (UniformSteps, {"steps": 0}),
            (UniformSteps, {"per_step": 0}),
            (SingleStep, {"step": "second"}),
            (SingleStep, {"count": 0}),
            (NormalSteps, {"mean": -0.1}),
            (NormalSteps, {"mean": 1.1}),
            (NormalSteps, {"std": 0}),
            (NormalSteps, {"std": float("nan")}),
            (NormalSteps, {"kind": "single-step"}),
            (GaussianInputs, {"steps": 3}),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, model: type[Request], values: dict[str, object]):
        with pytest.raises(ValidationError):
            model(**values)

    def test_reading_them_does_not_import_torch_or_numpy(self):
        code = "import sys, qbench.calibration; sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestUniformSteps:
    @pytest.mark.parametrize(
        ("steps", "sampling_steps", "expected"),
        [(4, 4, [0, 1, 2, 3]), (9, 4, [0, 1, 2, 3]), (2, 4, [0, 2]), (1, 7, [0]), (3, 10, [0, 3, 6])],
    )
    def test_steps_are_spaced_evenly(self, steps: int, sampling_steps: int, expected: list[int]):
        request = UniformSteps(steps=steps, per_step=5)
        assert request.step_indices(sampling_steps) == expected
        assert request.steps_of(0.5, sampling_steps) == request.steps_of(0.9, sampling_steps) == expected
        assert request.size(sampling_steps) == 5 * len(expected)
        assert request.samples == 5


class TestSingleStep:
    @pytest.mark.parametrize(("step", "expected"), [("first", [0, 0]), ("middle", [10, 0]), ("last", [19, 0])])
    def test_it_is_the_same_for_all(self, step: str, expected: list[int]):
        request = SingleStep(step=step, count=3)  # type: ignore[arg-type]
        for sampling_steps, index in zip((20, 1), expected, strict=True):
            assert {request.step_of(draw, sampling_steps) for draw in draws(count=50)} == {index}
        assert (request.samples, request.size(20)) == (3, 3)


def written_out(request: NormalSteps, sampling_steps: int) -> list[float]:
    """Algorithm 1 of the paper over whole times far beyond both ends, with a clamp that spares x_0."""
    time_of = NormalDist(request.mean * sampling_steps, request.std * sampling_steps)
    found = [0.0] * sampling_steps
    for time in range(-20 * sampling_steps, 20 * sampling_steps):
        clamped = min(max(time, 1), sampling_steps)
        found[sampling_steps - clamped] += time_of.cdf(time + 1) - time_of.cdf(time)
    return found


WRONG_RULES: dict[str, Callable[[float], int]] = {
    "rounding": lambda time: 20 - min(max(round(time), 1), 20),
    "rounding up": lambda time: 20 - min(max(math.ceil(time), 1), 20),
    "mirrored": lambda time: min(max(math.floor(time), 1), 20) - 1,
    "pure noise left out": lambda time: 20 - min(max(math.floor(time), 1), 19),
    "the last step left out": lambda time: 20 - min(max(math.floor(time), 2), 20),
    "time from 0": lambda time: 19 - min(max(math.floor(time), 0), 19),
}


class TestNormalSteps:
    def time(self, draw: float) -> float:
        return 20 * NormalDist(0.4, 0.4).inv_cdf(draw)

    @pytest.mark.parametrize("sampling_steps", [1, 2, 3, 20, 100])
    @pytest.mark.parametrize(("mean", "std"), [(0.4, 0.4), (0.5, 0.07), (0.0, 0.2), (1.0, 1.5)])
    def test_probabilities_are_those_of_the_algorithm(self, sampling_steps: int, mean: float, std: float):
        request = NormalSteps(mean=mean, std=std)
        found = request.probabilities(sampling_steps)
        assert found == pytest.approx(written_out(request, sampling_steps), abs=1e-9)
        assert sum(found) == pytest.approx(1)

    def test_the_ends_of_a_hundred_steps(self):
        """1 - Phi(1.5) at pure noise, which is time 100; Phi(-0.95) at the last step, all that is below time 2."""
        found = NormalSteps().probabilities(100)
        assert found[0] == pytest.approx(0.0668072, abs=1e-7)
        assert found[99] == pytest.approx(0.1710561, abs=1e-7)
        assert found[60] == pytest.approx(math.erf(0.025 / math.sqrt(2)) / 2, abs=1e-9)  # time 40, just above the mean

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_draws_follow_the_exact_distribution(self, seed: int):
        request = NormalSteps()
        steps = [request.step_of(draw, 20) for draw in draws(seed)]
        assert chi_square(steps, request.probabilities(20)) < CHI_SQUARE_19

    @pytest.mark.parametrize("rule", WRONG_RULES.values(), ids=WRONG_RULES)
    def test_another_rule_would_be_noticed(self, rule: Callable[[float], int]):
        steps = [rule(self.time(draw)) for draw in draws()]
        assert chi_square(steps, NormalSteps().probabilities(20)) > 1.3 * CHI_SQUARE_19

    def test_small_times_are_late_steps(self):
        request = NormalSteps()
        steps = [request.step_of(draw, 20) for draw in (1e-9, 0.17, 0.3, 0.5, 0.7, 0.93, 0.94, 1 - 1e-9)]
        assert steps == [19, 19, 17, 12, 8, 1, 0, 0]

    def test_a_narrow_distribution_is_a_single_step(self):
        assert {NormalSteps(mean=0.525, std=1e-6).step_of(draw, 20) for draw in draws(count=100)} == {10}


@pytest.mark.parametrize("model", [GaussianInputs, NoisedImages])
class TestStepsAtRandom:
    def test_all_are_equally_likely(self, model: type[OneStepEach]):
        steps = [model().step_of(draw, 20) for draw in draws()]  # type: ignore[call-arg]
        assert chi_square(steps, [1 / 20] * 20) < CHI_SQUARE_19

    @pytest.mark.parametrize("sampling_steps", [1, 2, 3, 20, 33, 1000])
    def test_no_draw_leads_beyond_the_ends(self, model: type[OneStepEach], sampling_steps: int):
        request = model()  # type: ignore[call-arg]
        assert request.step_of(2.0**-53, sampling_steps) == 0
        assert request.step_of(1 - 2.0**-53, sampling_steps) == sampling_steps - 1


def test_a_sample_is_one_row():
    for request, count in ((SingleStep(), 512), (NormalSteps(), 1024), (GaussianInputs(), 512), (NoisedImages(), 512)):
        assert (request.samples, request.size(20)) == (count, count)
    assert [model().source for model in KINDS] == ["sampler", "sampler", "sampler", "noise", "images"]  # type: ignore[call-arg]
