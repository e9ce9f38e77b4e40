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
from qbench.stages.side_by_side import side_by_side

BATCH = 64
CALLS = 8


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
        sample(lambda: model(x, timesteps, steps=steps))

    def full_precision() -> None:
        sample(lambda: plain(x, timesteps, return_dict=False))

    assert takes_at_most(
        quantized, full_precision, 1 / share, f"sampling with a frozen {bits} model over full precision"
    )


def sample(call: Callable[[], object]) -> None:
    """Call a denoiser again and again as the stage ``sample`` does: batches side by side, each with its own threads."""

    @torch.inference_mode()
    def run(batch: range, go_on: Callable[[], None]) -> None:
        for _ in range(CALLS):
            call()
            go_on()

    side_by_side(torch.device("cpu"), [range(BATCH)] * torch.get_num_threads(), run)
