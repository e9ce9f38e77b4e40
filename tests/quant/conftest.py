"""Small denoisers whose blocks are known, and calibration data for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor

from qbench.bits import BitWidth
from qbench.diffusion.unet_structure import unet_structure
from qbench.quant import CalibrationData, QuantModel

TOKENS, TEXT_WIDTH, STEPS = 3, 6, 4
SMALL: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 2,
    "out_channels": 2,
    "layers_per_block": 1,
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
    "attention_head_dim": 4,
}
IMAGE = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
TEXT = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": TEXT_WIDTH,
}


def _unet(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    unet_class, changes = (UNet2DModel, IMAGE) if kind == "image" else (UNet2DConditionModel, TEXT)
    unet = unet_class(**(SMALL | changes | options))
    for parameter in unet.parameters():
        if parameter.dim() == 1:  # fresh norms and biases would hide a mistake
            parameter.data += 0.3 * torch.randn(parameter.shape)
    return unet.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_unet() -> Callable[..., Any]:
    """Return a function that makes the UNet of diffusers, ``image`` or ``text``, always with the same weights."""
    return _unet


@pytest.fixture(scope="session")
def small_model() -> Callable[..., QuantModel]:
    """Return a function that wraps such a UNet: its kind and bits; keywords change the UNet."""

    def make(
        kind: str = "image",
        bits: str = "W3A32",
        boundary_bits: int | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> QuantModel:
        unet = _unet(kind, **options).type(dtype)
        return QuantModel(unet, unet_structure(unet), BitWidth.parse(bits), boundary_bits)

    return make


@pytest.fixture(scope="session")
def small_data() -> Callable[..., CalibrationData]:
    """Return a function that makes calibration data for such a UNet; keywords replace what they are otherwise."""

    def make(
        kind: str = "image",
        count: int = 10,
        draw: int = 0,
        side: int = 8,
        dtype: torch.dtype = torch.float32,
        **changes: Any,
    ) -> CalibrationData:
        generator = torch.Generator().manual_seed(draw)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        steps = torch.arange(count) % STEPS
        values: dict[str, Any] = {
            "x": random(count, 2, side, side),
            "timesteps": 999 - 300 * steps,
            "step_indices": steps,
            "batch_size": 4,
            "report": lambda done: None,
            "context": {} if kind == "image" else {"encoder_hidden_states": random(count, TOKENS, TEXT_WIDTH)},
        }
        return CalibrationData(**(values | changes))

    return make
