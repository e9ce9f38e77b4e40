"""Full precision and a quantized denoiser from the same noise to the end, one step of each at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qbench.diffusion.samplers import Denoise, NoiseSource, Sampler, StepContext, sample


@dataclass(frozen=True)
class Squares:
    """Squared norms of some samples, apart for each of them, so that batches can be put together.

    Attributes:
        teacher_forced: of the error and of the full-precision value, float32 [steps, 2, samples]; here the value is the
            estimate of the noise in full precision's x_t.
        free_running: the same of each sampler's own x, in front of each step and behind the last,
            float32 [steps + 1, 2, samples].
    """

    teacher_forced: Tensor
    free_running: Tensor


def lockstep(
    full_precision: Denoise,
    quantized: Denoise,
    sampler: Sampler,
    noise: NoiseSource,
    device: torch.device,
    report: Callable[[int], None],
) -> Squares:
    """Run both samplers side by side and compare them at every step; neither trajectory is kept.

    Args:
        full_precision: the denoiser with nothing quantized.
        quantized: the denoiser that is compared with it.
        sampler: of both.
        noise: which samples, and their noise.
        device: where to compute.
        report: called before each step with the number of samples.

    Raises:
        StageError: the output of one of them on its own trajectory is not finite.
    """
    teacher_forced: list[Tensor] = []
    free_running: list[Tensor] = []

    def denoise(x: Tensor, step: StepContext) -> Tensor:
        x_full, x_quantized = x.chunk(2)
        expected, found = full_precision(x_full, step), quantized(x_full, step)
        teacher_forced.append(_squares(expected, found))
        # In front of the first step, both samplers hold the same noise.
        return torch.cat([expected, found if step.step_index == 0 else quantized(x_quantized, step)])

    def observe(_: StepContext, x: Tensor) -> None:
        report(len(x) // 2)
        free_running.append(_squares(*x.chunk(2)))

    both = replace(noise, indices=[*noise.indices, *noise.indices])
    latents = sample(denoise, sampler, both, device, observe)
    free_running.append(_squares(*latents.chunk(2)))
    return Squares(torch.stack(teacher_forced).cpu(), torch.stack(free_running).cpu())


def _squares(expected: Tensor, found: Tensor) -> Tensor:
    return torch.stack([each.square().flatten(1).sum(dim=1) for each in (found - expected, expected)])
