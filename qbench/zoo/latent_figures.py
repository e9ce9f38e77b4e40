"""The figures that the cards of the latent stand-ins quote, measured on what no training saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbench.diffusion.codecs import DiffusersFirstStage, from_uint8, to_uint8
from qbench.diffusion.noise import Purpose
from qbench.diffusion.noise_schedule import diffused, signal_levels
from qbench.diffusion.noise_source import NoiseSource
from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.diffusion.samplers import make_sampler
from qbench.diffusion.sampling import StepContext, sample
from qbench.zoo.caption_tokenizer import tokens_of
from qbench.zoo.draws import generator, stratified_timesteps
from qbench.zoo.figures import BANDS, HeldOutLoss
from qbench.zoo.first_stages import FirstStage

if TYPE_CHECKING:
    from diffusers import VQModel
    from open_clip import CLIP
    from transformers import CLIPTokenizer

    from qbench.diffusion.conditioning import Conditioning

_BATCH = 250


@dataclass(frozen=True)
class Model:
    """A denoiser as it is sampled."""

    predict: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    """Noise in latents at timesteps [N], given text [N, 16, 64] or None."""
    latent_shape: tuple[int, int, int]
    schedule: ScheduleSettings
    sampler: SamplerSettings
    first_stage: FirstStage
    conditioning: Conditioning | None = None


@torch.no_grad()
def reconstructed(images: NDArray[np.uint8], first_stage: FirstStage) -> NDArray[np.uint8]:
    """Images [N, 1, 32, 32] encoded and decoded again."""
    codec = DiffusersFirstStage(first_stage.module)
    shards = [
        to_uint8(codec.decode(codec.encode(from_uint8(torch.from_numpy(images[rows]))))).numpy()
        for rows in _batches(len(images))
    ]
    return np.concatenate(shards)


def peak_signal_to_noise(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio over all pixels together, dB."""
    error = np.square(images.astype(np.float64) - others).mean()
    return float(10 * np.log10(255**2 / error))


@torch.no_grad()
def codes_used(latents: Tensor, model: VQModel) -> int:
    """How many codes are the nearest of some latents [N, C, 8, 8]."""
    used: set[int] = set()
    for rows in _batches(len(latents)):
        _, _, (_, _, indices) = model.quantize(latents[rows])
        used.update(indices.flatten().tolist())
    return len(used)


@torch.no_grad()
def held_out_loss(
    model: Model, latents: Tensor, captions: Sequence[str] | None = None, steps: int = 1000
) -> HeldOutLoss:
    """Loss with noise and timesteps that are the same for every model; every timestep comes up about equally often.

    Args:
        model: The denoiser.
        latents: Scaled latents of the test images [N, C, 8, 8].
        captions: Of the images, for a denoiser that reads them.
        steps: Length of the diffusion process.
    """
    source = generator(0, "held-out", 0)
    timesteps = stratified_timesteps(len(latents), steps, source)
    noise = torch.randn(latents.shape, generator=source)
    mixed = diffused(latents, noise, signal_levels(model.schedule)[timesteps.numpy()])
    errors = torch.cat(
        [
            (model.predict(mixed[rows], timesteps[rows], _text(model, captions, rows)) - noise[rows])
            .square()
            .mean(dim=(1, 2, 3))
            .double()
            for rows in _batches(len(mixed))
        ]
    )
    bands = {
        f"{first}-{end - 1}": float(errors[(timesteps >= first) & (timesteps < end)].mean()) for first, end in BANDS
    }
    return HeldOutLoss(float(errors.mean()), bands)


@torch.no_grad()
def sampled_images(
    model: Model, count: int, steps: int, captions: Sequence[str] | None = None, guidance: float | None = None
) -> NDArray[np.uint8]:
    """Images of the model's own sampler with seed 0.

    Args:
        model: The denoiser.
        count: How many images.
        steps: Sampling steps.
        captions: One for each image, for a denoiser that reads them; those that are left over are not looked at.
        guidance: In place of the sampler's own.

    Returns:
        Grey images [count, 1, 32, 32].
    """
    scale = model.sampler.guidance_scale if guidance is None else guidance
    sampler = make_sampler(model.schedule, model.sampler.model_copy(update={"steps": steps}))
    codec = DiffusersFirstStage(model.first_stage.module)
    shards = []
    for rows in _batches(count):
        text = _text(model, captions, rows)

        def denoise(x: Tensor, step: StepContext, text: Tensor | None = text) -> Tensor:
            timesteps = torch.full((len(x),), step.timestep)
            if text is None or model.conditioning is None:
                return model.predict(x, timesteps, None)
            conditional = model.predict(x, timesteps, text)
            if scale == 1.0:
                return conditional
            silent = model.conditioning([""])["encoder_hidden_states"].expand(len(x), -1, -1)
            unconditional = model.predict(x, timesteps, silent)
            return unconditional + scale * (conditional - unconditional)

        noise = NoiseSource(model.latent_shape, 0, Purpose.EVALUATION, range(count)[rows])
        shards.append(to_uint8(codec.decode(sample(denoise, sampler, noise, torch.device("cpu")))).numpy())
    return np.concatenate(shards)


@torch.no_grad()
def clip_cosines(
    images: NDArray[np.uint8], captions: Sequence[str], network: CLIP, tokenizer: CLIPTokenizer
) -> NDArray[np.float64]:
    """Cosine of each image [N, 1, 32, 32] with each caption, [N, captions]."""
    text = network.encode_text(tokens_of(captions, tokenizer), normalize=True)
    pictures = torch.cat(
        [
            network.encode_image(from_uint8(torch.from_numpy(images[rows])).expand(-1, 3, -1, -1), normalize=True)
            for rows in _batches(len(images))
        ]
    )
    cosines: NDArray[np.float64] = (pictures @ text.T).double().numpy()
    return cosines


def _text(model: Model, captions: Sequence[str] | None, rows: slice) -> Tensor | None:
    if model.conditioning is None or captions is None:
        return None
    return model.conditioning(captions[rows])["encoder_hidden_states"]


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH))
