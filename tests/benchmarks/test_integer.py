"""What computing in 8-bit integers gains on this CPU. It is a report without a bound: the gain is the machine's."""

from collections.abc import Callable, Sequence

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from qbench.bits import BitWidth
from qbench.diffusion.unet_structure import unet_structure
from qbench.instructions import instructions
from qbench.quant import ActivationRanges, CalibrationData, QuantModel, WeightRanges, set_input_grids, set_weight_grids
from qbench.quant.integer import IntegerModel, unavailable
from qbench.stages.timing import in_turns
from qbench.workloads.configurations import DDPM_CIFAR10

BITS = BitWidth(8, 8)
CHANNELS, SIZE = 3, 32
"""Of ddim-cifar10's images."""
MISSING = unavailable(torch.device("cpu"))
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def tiny(make: Callable[[BitWidth], QuantModel]) -> tuple[nn.Module, QuantModel]:
    """The shipped denoiser, once in full precision."""
    return make(BitWidth(32, 32)).module, make(BITS)


def cifar10() -> tuple[nn.Module, QuantModel]:
    """The denoiser of ddim-cifar10 with random weights: speed does not depend on what they are."""
    from diffusers import UNet2DModel

    modules: list[nn.Module] = []
    for _ in range(2):
        torch.manual_seed(0)
        modules.append(UNet2DModel.from_config(dict(DDPM_CIFAR10)).eval().requires_grad_(False))
    return modules[0], QuantModel(modules[1], unet_structure(modules[1]), BITS, boundary_bits=8)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("name", "batch"), [("tiny-ddim", 64), ("ddim-cifar10", 2)])
def test_a_call_in_integers(
    benchmark: BenchmarkFixture,
    tiny_ddim: Callable[[BitWidth], QuantModel],
    data: CalibrationData,
    name: str,
    batch: int,
) -> None:
    """On one thread: calls of a few milliseconds on several take anything from once to twice as long."""
    if benchmark.disabled:
        pytest.skip("it measures only; tests/quant/test_integer.py looks at what is computed")
    plain, model = cifar10() if name == "ddim-cifar10" else tiny(tiny_ddim)
    if name == "ddim-cifar10":
        x = torch.randn(32, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        data = CalibrationData(x, data.timesteps[:32], data.step_indices[:32], 8, lambda share: None)
    set_weight_grids(model, WeightRanges(), split=True)
    set_input_grids(model, data, ActivationRanges(), split=True)
    model.freeze()
    rows = data.x[:batch], data.timesteps[:batch]
    steps = data.step_indices[:batch]
    shapes: dict[str, Sequence[int]] = {}
    with torch.inference_mode():
        with model.observing(lambda layer: lambda given: shapes.update({layer: given.shape})):
            simulated = model(*rows, steps=steps)
        integer = IntegerModel(model, shapes)

        def in_integers() -> torch.Tensor:
            with integer.in_place():
                return model(*rows, steps=steps)

        error = in_integers() - simulated
        difference = float(error.square().sum() / simulated.square().sum())
        calls = {
            "int8": in_integers,
            "simulated": lambda: model(*rows, steps=steps),
            "full precision": lambda: plain(*rows, return_dict=False)[0],
        }
        seconds, _ = in_turns(calls, torch.device("cpu"))
    assert integer.simulated == {}
    assert difference < 0.1
    benchmark.extra_info |= {
        "ratio": seconds["int8"] / seconds["full precision"],
        "compared": f"an int8 W8A8 call of {name}'s denoiser over full precision, one thread ({instructions()})",
        "figure": (
            f"simulated {seconds['simulated'] / seconds['full precision']:.2f}x; relative squared difference from it "
            f"{difference:.2g}"
        ),
    }
    benchmark.pedantic(in_integers, rounds=2)
