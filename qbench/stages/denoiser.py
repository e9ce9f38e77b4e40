"""A workload's denoiser on a device, ready for what a stage does with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock

import torch
from torch import Tensor, nn

from qbench.bits import FULL_PRECISION, BitWidth
from qbench.diffusion.codecs import Codec
from qbench.diffusion.conditioning import Conditioning
from qbench.diffusion.correction_file import load_correction
from qbench.diffusion.guidance import context_of, guided, unconditional_context
from qbench.diffusion.samplers import Denoise, StepContext
from qbench.diffusion.step_correction import StepCorrection
from qbench.diffusion.structures import Context
from qbench.errors import StageError
from qbench.identity import digest
from qbench.quant.model import QuantModel
from qbench.quant.packing import load_input_grids, load_weights
from qbench.stages.conversion import load_workload
from qbench.stages.stage import Work
from qbench.store import Artefact
from qbench.workload import Workload

WEIGHTS = "weights.safetensors"
INPUT_GRIDS = "activations.safetensors"
CORRECTION = "correction.safetensors"


@dataclass(frozen=True)
class Denoiser:
    """A model with what is needed to sample from it.

    Attributes:
        model: the denoiser itself.
        codec: between images and latents.
        device: where to compute.
        conditioning: from captions to context; None where it samples without captions.
        guidance_scale: of classifier-free guidance.
        estimate: calls the model in its place, compiled; None for the model itself.
        correction: what the sampler takes back of what it puts out, guidance included.
    """

    model: QuantModel
    codec: Codec
    device: torch.device
    conditioning: Conditioning | None = None
    guidance_scale: float = 1.0
    estimate: Callable[[Tensor, Tensor, Context | None, Tensor | None], Tensor] | None = None
    correction: StepCorrection | None = None
    _one_at_a_time: Lock = field(default_factory=Lock)

    def __call__(self, x: Tensor, step: StepContext, context: Context | None = None) -> Tensor:
        """Estimate the noise in x [batch, *latent shape]."""
        timesteps = torch.full((len(x),), step.timestep, device=self.device)
        steps = torch.full((len(x),), step.step_index, device=self.device)
        return (self.estimate or self.model)(x, timesteps, context, steps)

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
    """Load a workload and, from those artefacts that are there, its quantization and the correction of it.

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
    correction = load_correction(inputs["correction"].file(CORRECTION)) if "correction" in inputs else None
    return Denoiser(model, loaded.codec, device, loaded.conditioning, scale, correction=correction)


def frozen_denoiser(workload: Workload, work: Work, device: torch.device) -> Denoiser:
    """Return the denoiser of a cell, frozen and as the runtime asks for; the kept one if it is the same.

    Args:
        workload: the workload.
        work: of a stage that samples.
        device: where to compute.

    Raises:
        StageError: the model cannot be wrapped, or guidance is asked for where there are no captions.
        DataError: a weight file is missing or damaged.
    """
    runtime = work.runtime
    key = {
        "workload": workload.describe(),
        # By content: a store may hold other bytes under the same address.
        "inputs": {name: dict(artefact.manifest.files) for name, artefact in work.inputs.items()},
        "device": str(device),
        "runtime": [runtime.channels_last, runtime.is_compiled, runtime.cuda_graphs],
    }
    return work.kept.get(digest(key), lambda: frozen(load_denoiser(workload, device, work.inputs), work))


def frozen(denoiser: Denoiser, work: Work) -> Denoiser:
    """Freeze a denoiser, and return it as the runtime asks for."""
    denoiser.model.freeze()
    lay_out(denoiser, work)
    if not work.runtime.is_compiled:
        return denoiser
    from qbench.stages.compiled import Compiled

    return replace(denoiser, estimate=Compiled(denoiser.model, work.runtime.cuda_graphs))


def lay_out(denoiser: Denoiser, work: Work) -> None:
    """Have the weights of denoiser and first stage lie in memory as the runtime asks for; activations follow them."""
    if not work.runtime.channels_last:
        return
    for module in (denoiser.model.module, getattr(denoiser.codec, "model", None)):
        if isinstance(module, nn.Module):
            module.to(memory_format=torch.channels_last)
