import dataclasses

import torch
from diffusers import DDIMScheduler

from qbench.zoo.denoiser_training import TINY_DDIM, denoiser_loss, initial_denoiser, noised, signal_levels, to_latents
from qbench.zoo.fashion_mnist import FashionMnist


def test_the_forward_process_is_that_of_diffusers() -> None:
    scheduler = DDIMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    torch.testing.assert_close(signal_levels().float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-7)
    source = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(5, 4, 8, 8, generator=source) for _ in range(2))
    timesteps = torch.tensor([0, 1, 250, 500, 999])
    expected = scheduler.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(noised(latents, noise, timesteps), expected, rtol=1e-4, atol=1e-5)


def test_latents_are_blocks_of_pixels(synthetic: FashionMnist) -> None:
    images = torch.from_numpy(synthetic.images)
    latents = to_latents(images)
    assert latents.shape == (64, 4, 8, 8)
    assert latents[3, 1, 2, 5] == images[3, 0, 4, 11] / 127.5 - 1
    assert latents.abs().max() <= 1


def test_the_loss_of_an_iteration_is_fixed(synthetic: FashionMnist) -> None:
    settings = dataclasses.replace(TINY_DDIM, batch=4)
    model = initial_denoiser(settings)
    loss = denoiser_loss(synthetic.images, settings)
    with torch.no_grad():
        assert loss(model, 5) == loss(model, 5)
        assert loss(model, 5) != loss(model, 6)


def test_predicting_nothing_costs_the_variance_of_noise(synthetic: FashionMnist) -> None:
    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor, timesteps: torch.Tensor):
            from diffusers.models.unets.unet_2d import UNet2DOutput

            return UNet2DOutput(sample=torch.zeros_like(x))

    value = denoiser_loss(synthetic.images, dataclasses.replace(TINY_DDIM, batch=512))(Silent(), 0)
    assert abs(float(value) - 1) < 0.02


def test_initialization_is_the_seeds_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = initial_denoiser(TINY_DDIM), initial_denoiser(TINY_DDIM)
    other = initial_denoiser(dataclasses.replace(TINY_DDIM, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.conv_in.weight, two.conv_in.weight)
    assert not torch.equal(one.conv_in.weight, other.conv_in.weight)
