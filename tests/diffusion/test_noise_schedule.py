import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from qbench.diffusion.noise_schedule import diffused, noise_of, signal_levels
from qbench.diffusion.sampler_settings import ScheduleSettings


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_signal_levels_are_those_of_diffusers(betas: str) -> None:
    schedule = ScheduleSettings.model_validate({"betas": betas, "beta_start": 0.00085, "beta_end": 0.012})
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=betas)
    np.testing.assert_allclose(signal_levels(schedule), scheduler.alphas_cumprod.numpy(), rtol=2e-5)


def test_noise_and_v_say_the_same_of_an_x() -> None:
    clean, noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).unbind()
    alpha = 0.37
    x = diffused(clean, noise, [alpha] * 4)
    torch.testing.assert_close(x, alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise)
    v = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
    torch.testing.assert_close(noise_of(v, x, alpha, "v_prediction"), noise)
    assert noise_of(noise, x, alpha, "epsilon") is noise
