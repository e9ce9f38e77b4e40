"""The network that methods are examined on, with data for it; small, never downloaded, always the same."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.diffusion.unet_structure import unet_structure
from qbench.quant import CalibrationData, Count, QuantModel, take_census

LATENT_SHAPE = (2, 4, 4)
STEPS = 4
TIMESTEPS = (999, 699, 399, 99)
SEED = 7


@cache
def _original() -> nn.Module:
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        unet = UNet2DModel(
            sample_size=LATENT_SHAPE[1],
            in_channels=LATENT_SHAPE[0],
            out_channels=LATENT_SHAPE[0],
            layers_per_block=1,
            block_out_channels=(6,),
            norm_num_groups=2,
            attention_head_dim=3,
            down_block_types=("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",),
        )
    return unet.eval().requires_grad_(False)  # type: ignore[no-any-return]


def small_module() -> tuple[nn.Module, Structure]:
    """Return a UNet with attention, split shortcuts and segments, and its structure."""
    module = copy.deepcopy(_original())
    return module, unet_structure(module)


def small_model(bits: BitWidth, boundary_bits: int | None) -> QuantModel:
    """Return it wrapped, as a stage hands it to a method."""
    return QuantModel(*small_module(), bits, boundary_bits)


@cache
def small_census() -> tuple[Count, ...]:
    """Return what it consists of."""
    inputs = rows(1)
    return take_census(*small_module(), inputs.x, inputs.timesteps)


def rows(count: int, batch_size: int = 16, seed: int = 0) -> CalibrationData:
    """Return inputs for it: noise at all of its steps in turn.

    Args:
        count: of rows.
        batch_size: of the data.
        seed: of the noise.
    """
    x: Tensor = torch.randn(count, *LATENT_SHAPE, generator=torch.Generator().manual_seed(seed))
    steps = torch.arange(count) % STEPS
    timesteps = torch.tensor(TIMESTEPS)[steps]
    return CalibrationData(x, timesteps, steps, batch_size, lambda done: None, calls=STEPS)
