"""What --compile gains. It is a report without a bound: the gain is the machine's and the compiler's."""

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from qbench.bits import BitWidth
from qbench.quant import ActivationRanges, CalibrationData, QuantModel, WeightRanges, set_input_grids, set_weight_grids
from qbench.stages.compiled import Compiled

BATCH, CALLS, ROUNDS = 125, 4, 5


@pytest.mark.parametrize("bits", ["W32A32", "W4A8"])
def test_sampling_behind_torch_compile(
    benchmark: BenchmarkFixture, tiny_ddim: Callable[[BitWidth], QuantModel], data: CalibrationData, bits: str
) -> None:
    if benchmark.disabled:
        pytest.skip("compiling takes a minute, and nothing would be measured")
    model = tiny_ddim(BitWidth.parse(bits))
    set_weight_grids(model, WeightRanges(), split=True)
    set_input_grids(model, data, ActivationRanges(), split=True)
    model.freeze()
    compiled = Compiled(model)
    rows = data.x[:BATCH], data.timesteps[:BATCH], None, data.step_indices[:BATCH]

    @torch.inference_mode()
    def seconds(call: Callable[..., object]) -> float:
        begun = time.perf_counter()
        for _ in range(CALLS):
            call(*rows)
        return time.perf_counter() - begun

    first = seconds(compiled)
    ratio = median(seconds(compiled) / seconds(model) for _ in range(ROUNDS))
    benchmark.extra_info |= {
        "ratio": ratio,
        "compared": f"a {bits} call of tiny-ddim's denoiser behind torch.compile over one without",
        "figure": f"after {first:.0f} s for the first {CALLS} calls",
    }
    benchmark.pedantic(seconds, (compiled,), rounds=2)
    print(f"{bits}: compiled {ratio:.3f} times as long as not, after {first:.0f} s for the first {CALLS} calls")
