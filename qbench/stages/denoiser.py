"""A workload's denoiser on a device, ready for what a stage does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.bits import FULL_PRECISION, BitWidth
from qbench.diffusion.codecs import Codec
from qbench.diffusion.samplers import StepContext
from qbench.quant.model import QuantModel
from qbench.quant.packing import load_input_grids, load_weights
from qbench.store import Artefact
from qbench.workload import Workload

WEIGHTS = "weights.safetensors"
INPUT_GRIDS = "activations.safetensors"


@dataclass(frozen=True)
class Denoiser:
    """A model with what is needed to sample from it."""

    model: QuantModel
    codec: Codec
    device: torch.device

    def __call__(self, x: Tensor, step: StepContext) -> Tensor:
        """Estimate the noise in x [batch, *latent shape]."""
        timesteps = torch.full((len(x),), step.timestep, device=self.device)
        return self.model(x, timesteps, steps=torch.full((len(x),), step.step_index, device=self.device))


def load_denoiser(
    workload: Workload,
    device: torch.device,
    inputs: Mapping[str, Artefact],
    bits: BitWidth = FULL_PRECISION,
    boundary_bits: int | None = None,
) -> Denoiser:
    """Load a workload and, from the artefacts ``weights`` and ``activations`` if they are there, its quantization.

    Args:
        workload: the workload.
        device: where to compute.
        inputs: a stage's inputs.
        bits: what each layer is to get; of no matter where grids are only read.
        boundary_bits: weight bits of the first and last layer.
    """
    loaded = workload.load()
    model = QuantModel(loaded.module.to(device).eval().requires_grad_(False), loaded.structure, bits, boundary_bits)
    if "weights" in inputs:
        load_weights(model, inputs["weights"].file(WEIGHTS))
    if "activations" in inputs:
        load_input_grids(model, inputs["activations"].file(INPUT_GRIDS))
    return Denoiser(model, loaded.codec, device)
