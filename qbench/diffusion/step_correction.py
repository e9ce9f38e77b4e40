"""What a method corrects in the denoiser's output at each step (PTQD)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.errors import StageError


@dataclass(frozen=True)
class StepCorrection:
    """The quantization noise of a denoiser as PTQD (He et al. 2023, arXiv 2305.10657, section 3) models it, by step.

    A quantized denoiser puts out ``(1 + slope) estimate + bias + residual`` in place of full precision's estimate.
    The first two are taken back, ``(output - bias) / (1 + slope)``. The residual, uncorrelated noise, cannot be; in
    its stead, the sampler adds as much less of its own.

    Attributes:
        slope: [steps], each above -1.
        bias: [steps, channels].
        variance: of the residual in the output, before anything is taken back, [steps]; where the denoiser predicts v,
            it is that of v, and so are slope and bias.

    Raises:
        StageError: a shape is another one, or a value is not finite or out of its range.
    """

    slope: Tensor
    bias: Tensor
    variance: Tensor

    def __post_init__(self) -> None:
        steps = len(self.slope) if self.slope.dim() == 1 else -1
        if steps < 0 or self.bias.dim() != 2 or len(self.bias) != steps or self.variance.shape != (steps,):
            shapes = ", ".join(str(list(each.shape)) for each in (self.slope, self.bias, self.variance))
            raise StageError(
                "a step correction has a slope [steps], a bias [steps, channels] and a variance [steps], "
                f"and these have the shapes {shapes}"
            )
        if not all(bool(each.isfinite().all()) for each in (self.slope, self.bias, self.variance)):
            raise StageError("a step correction is not finite")
        if bool((self.slope <= -1).any()) or bool((self.variance < 0).any()):
            raise StageError("a step correction has a slope of at most -1 or a negative variance")

    def check(self, steps: int, channels: int) -> None:
        """Refuse to correct another sampler's steps or other latents.

        Raises:
            StageError: the numbers differ.
        """
        if tuple(self.bias.shape) != (steps, channels):
            raise StageError(
                f"the step correction is for {len(self.bias)} steps and {self.bias.shape[1]} channels, "
                f"and the sampler calls the denoiser {steps} times on {channels} channels"
            )

    def on(self, device: torch.device) -> "StepCorrection":
        """Return the same correction with what enters tensors on a device, and the rest on the host.

        So no step waits for a copy, nor for a number from the device.
        """
        return StepCorrection(self.slope.cpu(), self.bias.to(device), self.variance.cpu())

    def corrected(self, output: Tensor, index: int) -> Tensor:
        """Return the estimate without slope and bias.

        Args:
            output: what the denoiser put out, guidance included [batch, channels, ...].
            index: the step.
        """
        bias = self.bias[index].to(output).view(-1, *[1] * (output.dim() - 2))
        return (output - bias) / (1 + float(self.slope[index]))

    def residual(self, index: int) -> float:
        """Return the variance of the noise that is left in the corrected estimate."""
        return float(self.variance[index]) / (1 + float(self.slope[index])) ** 2
