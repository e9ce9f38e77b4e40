"""A frozen model must sample about as fast as full precision: weights are folded, activations take a few passes."""

from collections.abc import Callable

import pytest
import torch

from qbench.bits import BitWidth
from qbench.quant import (
    ActivationRanges,
    CalibrationData,
    QuantModel,
    WeightRanges,
    set_input_grids,
    set_weight_grids,
)

BATCH = 64
CALLS = 4


@pytest.mark.parametrize(("bits", "share"), [("W4A32", 0.97), ("W4A8", 0.85)])
def test_images_per_second_of_a_frozen_model(
    tiny_ddim: Callable[[BitWidth], QuantModel],
    data: CalibrationData,
    takes_at_most: Callable[..., bool],
    bits: str,
    share: float,
) -> None:
    plain = tiny_ddim(BitWidth(32, 32)).module
    model = tiny_ddim(BitWidth.parse(bits))
    set_weight_grids(model, WeightRanges(), split=True)
    set_input_grids(model, data, ActivationRanges(), split=True)
    model.freeze()
    x, timesteps, steps = data.x[:BATCH], data.timesteps[:BATCH], data.step_indices[:BATCH]

    def quantized() -> None:
        for _ in range(CALLS):
            model(x, timesteps, steps=steps)

    def full_precision() -> None:
        for _ in range(CALLS):
            plain(x, timesteps, return_dict=False)

    with torch.inference_mode():
        assert takes_at_most(quantized, full_precision, 1 / share)
