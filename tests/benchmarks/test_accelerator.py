"""What takes a day on an accelerator, at its real size with random weights: speed does not depend on what they are.

Needs CUDA; without it `docs/performance.md` says "not measured".
"""

from collections.abc import Callable
from functools import partial
from io import BytesIO

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.unet_structure import unet_structure
from qbench.quant import (
    ActivationRanges,
    CalibrationData,
    QuantModel,
    RoundingRecipe,
    WeightRanges,
    set_input_grids,
    set_weight_grids,
)
from qbench.quant.reconstruction import fit_rounding
from qbench.quant.rounding import SoftRounding
from qbench.quant.units import Unit, Walk
from qbench.workloads.configurations import DDPM_CIFAR10

DEVICE = "cuda"
BATCH = 250
CALLS = 20
ITERATIONS = 1000
BLOCK = "up_blocks.2.resnets.0"

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, and its speed is what is measured"),
    pytest.mark.slow,
]
Judge = Callable[..., bool]


def denoiser() -> nn.Module:
    """The denoiser of ddim-cifar10, 35.75 M parameters."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    module: nn.Module = UNet2DModel.from_config(dict(DDPM_CIFAR10)).eval().requires_grad_(False).to(DEVICE)
    return module


def data(rows: int) -> CalibrationData:
    x = torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    steps = torch.arange(rows, device=DEVICE) % 20
    return CalibrationData(x, 950 - 50 * steps, steps, 64, lambda share: None)


def quantized(bits: str, rows: int) -> QuantModel:
    module = denoiser()
    model = QuantModel(module, unet_structure(module), BitWidth.parse(bits), boundary_bits=8)
    set_weight_grids(model, WeightRanges(), split=True)
    if model.bits.quantizes_activations:
        set_input_grids(model, data(rows), ActivationRanges(), split=True)
    return model


def finished(work: Callable[[], object]) -> None:
    """Work until the device has done it all."""
    work()
    torch.cuda.synchronize()


def images_per_second(benchmark: BenchmarkFixture, images: int, work: Callable[[], None]) -> None:
    """Note the figure itself beside the ratio."""
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begun.record()
    work()
    ended.record()
    torch.cuda.synchronize()
    rate = images / (begun.elapsed_time(ended) / 1000)
    benchmark.extra_info["figure"] = f"{rate:,.0f} images/s"


def test_sampling_cifar10_with_a_frozen_w4a8_model(benchmark: BenchmarkFixture, takes_at_most: Judge) -> None:
    """One denoiser call for each image and step: 100 of them make an image of ddim-cifar10."""
    plain = denoiser()
    model = quantized("W4A8", 128)
    model.freeze()
    given = data(BATCH)

    @torch.inference_mode()
    def sample(call: Callable[[], object]) -> None:
        for _ in range(CALLS):
            call()

    def frozen() -> None:
        sample(lambda: model(given.x, given.timesteps, steps=given.step_indices))

    def full_precision() -> None:
        sample(lambda: plain(given.x, given.timesteps, return_dict=False))

    compared = "sampling ddim-cifar10's architecture with a frozen W4A8 model over full precision"
    judged = takes_at_most(partial(finished, frozen), partial(finished, full_precision), 1 / 0.85, compared)
    images_per_second(benchmark, BATCH * CALLS, frozen)
    benchmark.extra_info["figure"] += " for one step"
    assert judged


def test_reconstructing_a_block_of_cifar10(takes_at_most: Judge) -> None:
    model = quantized("W4A32", 128)
    given = data(256)
    unit = next(each for each in Walk(model, given, "block", "quantized") if each.name == BLOCK)
    roundings = {
        name: SoftRounding(layer.weight, layer.weight_grid)
        for name, layer in unit.layers.items()
        if layer.weight_grid is not None
    }
    recipe = RoundingRecipe(iterations=ITERATIONS)
    weights = [layer.weight for layer in unit.layers.values()]
    rows = torch.arange(recipe.batch_size, device=DEVICE)

    def own() -> None:
        for weight in weights:
            weight.requires_grad_(True)
        with model.full_precision():
            for _ in range(ITERATIONS):
                forward_and_backward(unit, rows, weights)
        for weight in weights:
            weight.requires_grad_(False)

    compared = f"{ITERATIONS} iterations of reconstruction over the block's own forward and backward: {BLOCK}"
    reconstruct = partial(finished, lambda: fit_rounding(unit, roundings, given, recipe))
    assert takes_at_most(reconstruct, partial(finished, own), 1.3, compared)


def forward_and_backward(unit: Unit, rows: Tensor, weights: list[Tensor]) -> None:
    for weight in weights:
        weight.grad = None
    torch.autograd.backward((unit.forward(rows) - unit.target[rows]).square().mean())


def inception() -> nn.Module:
    """The network of FID as it is made, untrained."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: object) -> None:
            assert state_dict == {}

    nothing = BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network: nn.Module = Untrained("untrained", ["2048"], feature_extractor_weights_path=nothing)
    return network.eval().requires_grad_(False).to(DEVICE)


def test_extracting_inception_features(benchmark: BenchmarkFixture, takes_at_most: Judge) -> None:
    from qbench.metrics.inception_extractor import _features

    network = inception()
    images = torch.randint(0, 256, (BATCH, 3, 299, 299), dtype=torch.uint8)

    @torch.inference_mode()
    def features() -> None:
        _features(network, images.to(DEVICE).float())["pooled"].cpu()

    resident = images.to(DEVICE).float()

    @torch.inference_mode()
    def plain() -> None:
        _features(network, resident)

    compared = "Inception features of images from the host over those of images on the device"
    judged = takes_at_most(partial(finished, features), partial(finished, plain), 1.5, compared)
    images_per_second(benchmark, BATCH, features)
    assert judged
