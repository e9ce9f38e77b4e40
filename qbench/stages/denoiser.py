"""A workload's denoiser on a device, ready for what a stage does with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import torch
from torch import Tensor

from qbench.bits import FULL_PRECISION, BitWidth
from qbench.diffusion.codecs import Codec
from qbench.diffusion.conditioning import Conditioning
from qbench.diffusion.guidance import context_of, guided, unconditional_context
from qbench.diffusion.samplers import Denoise, StepContext
from qbench.diffusion.structures import Context
from qbench.errors import StageError
from qbench.quant.model import QuantModel
from qbench.quant.packing import load_input_grids, load_weights
from qbench.stages.conversion import load_workload
from qbench.store import Artefact
from qbench.workload import Workload

WEIGHTS = "weights.safetensors"
INPUT_GRIDS = "activations.safetensors"


@dataclass(frozen=True)
class Denoiser:
    """A model with what is needed to sample from it.

    Attributes:
        model: the denoiser itself.
        codec: between images and latents.
        device: where to compute.
        conditioning: from captions to context; None where it samples without captions.
        guidance_scale: of classifier-free guidance.
    """

    model: QuantModel
    codec: Codec
    device: torch.device
    conditioning: Conditioning | None = None
    guidance_scale: float = 1.0
    _one_at_a_time: Lock = field(default_factory=Lock)

    def __call__(self, x: Tensor, step: StepContext, context: Context | None = None) -> Tensor:
        """Estimate the noise in x [batch, *latent shape]."""
        timesteps = torch.full((len(x),), step.timestep, device=self.device)
        return self.model(x, timesteps, context, torch.full((len(x),), step.step_index, device=self.device))

    def conditioned(self, captions: Callable[[], Sequence[str]]) -> Denoise:
        """Return the denoiser for one batch, guidance included; itself, if it samples without captions.

        Args:
            captions: returns the caption of each row; not called if there is no need.

        Raises:
            StageError: the context of a caption is not what it should be.
            DataError: the captions are missing.
        """
        if self.conditioning is None:
            return self
        with self._one_at_a_time:  # batches run in threads, and tokenizers do not bear two at once
            conditional = context_of(self.conditioning, captions(), self.device)
            if self.guidance_scale == 1.0:
                return partial(self, context=conditional)
            unconditional = unconditional_context(self.conditioning, self.device)
        return guided(self, conditional, unconditional, self.guidance_scale)


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

    Raises:
        StageError: the model cannot be wrapped, or guidance is asked for where there are no captions.
        DataError: a weight file is missing or damaged.
    """
    loaded = load_workload(workload, inputs)
    model = QuantModel(loaded.module.to(device).eval().requires_grad_(False), loaded.structure, bits, boundary_bits)
    if "weights" in inputs:
        load_weights(model, inputs["weights"].file(WEIGHTS))
    if "activations" in inputs:
        load_input_grids(model, inputs["activations"].file(INPUT_GRIDS))
    scale = workload.sampler.guidance_scale
    if loaded.conditioning is None and scale != 1.0:
        raise StageError(
            f"the workload {workload.name!r} samples without captions, so a guidance_scale of {scale:g} has nothing to "
            "guide by: leave it 1"
        )
    return Denoiser(model, loaded.codec, device, loaded.conditioning, scale)
