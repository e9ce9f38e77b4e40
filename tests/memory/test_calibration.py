import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qbench import plugins
from qbench.bits import BitWidth
from qbench.memory.calibration import CalibrationMemory, WorkloadMemory, memory_of_plan, memory_of_workload
from qbench.method import Method
from qbench.plan import make_plan
from qbench.plugin import create
from qbench.stages.quantize import Assignment
from qbench.stages.quantized import Quantized, quantized
from qbench.stages.stage import Runtime
from qbench.suite import load_suite
from qbench.workload import Workload

GB = 1e9


def workload(name: str, **settings: Any) -> Workload:
    return create(plugins.WORKLOADS, name, Workload, settings, str, ValueError)


def method(name: str, **settings: Any) -> Method:
    return create(plugins.METHODS, name, Method, settings, str, ValueError)


def stages(of: Workload, by: Method, bits: str = "W4A8") -> Quantized:
    return quantized(Assignment(of, by, BitWidth.parse(bits), None, 0))


def estimate(of: Workload, by: Method, bits: str = "W4A8", **runtime: Any) -> dict[str, CalibrationMemory]:
    found = memory_of_workload("it", of, stages(of, by, bits).inputs().values(), Runtime(**runtime))
    assert found.reason == ""
    return {each.kind: each for each in found.stages}


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """An original checkpoint that nobody reads."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"")
    return str(path)


class TestTheRealModels:
    def test_the_bedrooms_take_seconds_to_estimate_and_gigabytes_to_calibrate(self, one_thread: None, checkpoint: str):
        begun = time.process_time()
        found = estimate(workload("ldm-lsun-bedroom", model=checkpoint), method("qdiffusion", split=False))
        assert time.process_time() - begun < 10
        assert found["weights"].model == pytest.approx(2 * 274.06e6 * 4, rel=1e-3)
        assert found["weights"].data == 20 * 256 * (4 * 3 * 64 * 64 + 16)
        assert found["weights"].in_files > 100 * GB
        assert 6 * GB < found["weights"].total < 12 * GB
        assert "attentions" in found["activations"].moment
        assert 15 * GB < found["activations"].total < 30 * GB

    def test_a_guided_model_is_calibrated_on_its_captions_with_and_without(self, checkpoint: str):
        found = estimate(workload("sd-v1-4", model=checkpoint), method("linear"), "W4A8", batch_size=2)
        rows = 2 * 20 * 256
        assert found["activations"].data == rows * (4 * 4 * 64 * 64 + 4 * 77 * 768 + 16)
        assert found["weights"].model == pytest.approx(2 * 859.52e6 * 4, rel=1e-3)
        probabilities = 4 * 2 * 8 * 4096**2  # of a batch of two, with eight heads
        assert 2 * probabilities < found["activations"].work < 6 * probabilities


class TestOneStage:
    def test_what_a_correction_is_measured_on_counts(self):
        found = estimate(workload("tiny-ddim"), method("ptqd"))
        assert found.keys() == {"weights", "activations", "correction"}
        steps = workload("tiny-ddim").sampler.calls
        assert found["correction"].data == 1024 * steps * (4 * 4 * 8 * 8 + 16)
        assert found["correction"].model == found["activations"].model
        observed = estimate(workload("tiny-ddim"), method("linear"))["activations"]
        assert found["correction"].work == pytest.approx(observed.work, rel=0.01)

    def test_its_parts_add_up_and_running_state_beyond_the_cache_goes_to_files(self):
        whole, capped = (
            estimate(workload("tiny-ddim"), method("adaround"), "W4A32", cache_bytes=size)["weights"]
            for size in (10**10, 10**6)
        )
        assert whole.total == whole.model + whole.data + whole.running_state + whole.work < whole.process
        assert (whole.in_files, capped.running_state) == (0, 10**6)
        assert capped.in_files == pytest.approx(whole.running_state - 10**6, rel=0.1)

    def test_weights_are_held_twice_where_they_are_rounded(self):
        rounded, original = (
            estimate(workload("tiny-ddim"), method("linear"), bits)["activations"].model for bits in ("W4A8", "W32A8")
        )
        assert rounded == pytest.approx(2 * original, rel=0.01)

    def test_weights_without_data_take_little(self):
        found = estimate(workload("tiny-ddim"), method("squant"))["weights"]
        assert (found.data, found.running_state) == (0, 0)
        assert 0 < found.work < found.model

    def test_hessians_are_held_and_inverted(self):
        found = estimate(workload("tiny-ddim"), method("gptq"))["weights"]
        largest = (192 * 3 * 3) ** 2  # of the convolution behind the widest concatenation
        assert 3 * 8 * largest < found.work < 12 * 8 * largest
        assert found.running_state > estimate(workload("tiny-ddim"), method("linear"))["weights"].running_state == 0

    @pytest.mark.parametrize(
        ("name", "change"), [("brecq", {"through_network": True}), ("adaround", {"granularity": "layer"})]
    )
    def test_a_method_says_what_its_settings_do_not(self, name: str, change: Mapping[str, Any]):
        profile = method(name).memory_profile("weights")
        assert profile.recipe == method(name).settings.rounding  # type: ignore[attr-defined]
        assert {key: getattr(profile, key) for key in change} == change
        assert not method("brecq", fisher=False).memory_profile("weights").through_network


class TestAPlan:
    def test_each_workload_with_something_to_calibrate_is_estimated(self, micro_suite: Callable[..., Path]):
        suite = load_suite(micro_suite(workloads=["micro", {"name": "micro", "settings": {"gain": 2.0}, "as": "loud"}]))
        plan = make_plan(suite)
        found = memory_of_plan(plan, plan.stages, Runtime())
        assert [each.workload for each in found] == ["micro", "loud"]
        assert [sorted(stage.kind for stage in each.stages) for each in found] == 2 * [["activations", "weights"]]
        assert all(each.heaviest.total >= stage.total for each in found for stage in each.stages)
        assert memory_of_plan(plan, {}, Runtime()) == []

    def test_why_there_is_no_estimate(self, micro_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
        plan = make_plan(load_suite(micro_suite()))
        broken = plan.cells[0].cell.workload
        monkeypatch.setattr(type(broken), "skeleton", lambda self: 1 / 0)
        reason = "the workload 'micro', run without values, raises ZeroDivisionError: division by zero"
        assert memory_of_plan(plan, plan.stages, Runtime()) == [WorkloadMemory("micro", (), reason)]
