"""The noise schedule that a denoiser was trained with: signal levels, and what it predicts at them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbench.diffusion.sampler_settings import Prediction, ScheduleSettings


def signal_levels(schedule: ScheduleSettings) -> NDArray[np.float64]:
    """Return the share of the signal in x_t at every training timestep, ``alphas_cumprod`` [train_steps].

    That is the alpha bar of DDPM (arXiv 2006.11239) and the alpha of DDIM (arXiv 2010.02502).
    """
    start, end, count = schedule.beta_start, schedule.beta_end, schedule.train_steps
    betas = np.linspace(start, end, count, dtype=np.float64)
    if schedule.betas == "scaled_linear":
        betas = np.linspace(math.sqrt(start), math.sqrt(end), count, dtype=np.float64) ** 2
    return np.cumprod(1.0 - betas, dtype=np.float64)


def diffused(clean: Tensor, noise: Tensor, levels: Sequence[float] | NDArray[np.float64]) -> Tensor:
    """Return x_t by the forward process q(x_t | x_0) (DDPM, arXiv 2006.11239, equation 4).

    Args:
        clean: x_0 [batch, *latent shape].
        noise: standard normal, in the same shape.
        levels: the signal level of each row.
    """
    alpha = torch.from_numpy(np.asarray(levels, np.float64)).view(-1, *[1] * (clean.dim() - 1))
    signal, deviation = (each.sqrt().to(clean) for each in (alpha, 1 - alpha))
    return signal * clean + deviation * noise


def noise_of(estimate: Tensor, x: Tensor, alpha: float, prediction: Prediction) -> Tensor:
    """Return the noise that a denoiser's output means.

    Args:
        estimate: its output at ``x``.
        x: x_t [batch, *latent shape].
        alpha: the signal level there.
        prediction: what it predicts; v is that of Salimans and Ho (arXiv 2202.00512), appendix D.
    """
    if prediction == "epsilon":
        return estimate
    return float(alpha**0.5) * estimate + float((1 - alpha) ** 0.5) * x
