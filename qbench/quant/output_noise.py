"""The noise that quantization brings into a denoiser's estimate, as PTQD models it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.quant.data import CalibrationData
from qbench.quant.estimates import estimate_pairs
from qbench.quant.model import QuantModel


@dataclass(frozen=True)
class OutputNoise:
    """Moments of a quantized denoiser's error and of full precision's estimate, by step and channel.

    The error is modelled as ``slope * estimate + bias + residual``, with one slope for each step and one bias for each
    of its channels (PTQD, arXiv 2305.10657). An output is corrected to ``(output - bias) / (1 + slope)``.
    Every moment is taken over all samples and pixels, float64 [steps, channels].

    Attributes:
        steps: that there is data for, ascending, int64 [steps].
        estimate: mean of full precision's estimate.
        error: mean of the error.
        estimate_power: variance of the estimate.
        covariance: of estimate and error.
        error_power: variance of the error.
    """

    steps: Tensor
    estimate: Tensor
    error: Tensor
    estimate_power: Tensor
    covariance: Tensor
    error_power: Tensor

    def slope(self) -> Tensor:
        """Return the slope of least squares within channels [steps]: a channel's mean is for its bias to explain."""
        power = self.estimate_power.sum(1)
        return (self.covariance.sum(1) / power).where(power > 0, 0.0)

    def bias(self, slope: Tensor) -> Tensor:
        """Return the mean of what a slope leaves [steps, channels].

        Args:
            slope: [steps].
        """
        return self.error - slope[:, None] * self.estimate

    def variance(self, slope: Tensor) -> Tensor:
        """Return the variance of what a slope leaves, about each channel's mean [steps].

        Args:
            slope: [steps].
        """
        slope = slope[:, None]
        left = self.error_power - 2 * slope * self.covariance + slope**2 * self.estimate_power
        return left.mean(1).clamp(min=0)

    def squared_error(self, slope: Tensor, with_bias: bool) -> Tensor:
        """Return the mean squared error of the corrected estimate [steps].

        Args:
            slope: that is taken back [steps].
            with_bias: whether the bias is taken back too.
        """
        left = self.variance(slope) + (0.0 if with_bias else self.bias(slope).square().mean(1))
        return left / (1 + slope) ** 2


def measure_noise(model: QuantModel, data: CalibrationData) -> OutputNoise:
    """Measure the noise of a model at the steps of its calibration data.

    Args:
        model: with its grids, not frozen.
        data: its inputs.

    Raises:
        StageError: there are no rows, or an estimate is not finite.
    """
    steps = torch.unique(data.step_indices).cpu()
    sums = count = torch.zeros(())
    for pair in estimate_pairs(model, data):
        estimate, output = (each.cpu().double().flatten(2) for each in (pair.full_precision, pair.quantized))
        error = output - estimate
        products = torch.stack([estimate, error, estimate**2, estimate * error, error**2]).mean(-1)
        of_step = (steps[:, None] == pair.step_indices.cpu()).double()
        sums, count = sums + of_step @ products, count + of_step.sum(1, keepdim=True)
    mean, shift, square, product, error_square = sums / count
    return OutputNoise(
        steps,
        mean,
        shift,
        (square - mean**2).clamp(min=0),
        product - mean * shift,
        (error_square - shift**2).clamp(min=0),
    )
