import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPTokenizer

from qbench.diffusion.noise_schedule import signal_levels
from qbench.zoo.caption_tokenizer import load_tokenizer, tokens_of
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.first_stages import load_first_stage
from qbench.zoo.garments import TEMPLATES, Garment, caption
from qbench.zoo.latent_training import (
    TINY_LDM,
    TINY_LDM_KL,
    TINY_SD,
    UNCONDITIONAL,
    caption_tokens,
    initial_ldm,
    initial_ldm_kl,
    initial_sd,
    latent_loss,
    latents_of,
    scaling_factor,
    text_loss,
)
from qbench.zoo.schedules import LSUN_BEDROOMS, STABLE_DIFFUSION


class Recorder(torch.nn.Module):
    """Keeps what it is shown and predicts no noise."""

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor | None = None):
        self.latents, self.timesteps, self.tokens = latents, timesteps, tokens
        nothing = torch.zeros_like(latents)
        return SimpleNamespace(sample=nothing) if tokens is None else nothing


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return load_tokenizer()


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "channels"), [("fashion-vq", 3), ("fashion-kl", 4)])
def test_the_factor_gives_latents_a_deviation_of_one(
    untrained_weights: Path, padded: FashionMnist, name, channels: int
) -> None:
    first_stage = load_first_stage(name, untrained_weights / f"{name}.safetensors").module
    found = latents_of(padded.images[:8], first_stage)
    assert found.shape == (8, channels, 8, 8)
    assert float((scaling_factor(found) * found).std()) == pytest.approx(1, abs=1e-3)
    assert scaling_factor(1000 * found) == pytest.approx(scaling_factor(found) / 1000, rel=1e-3)


def test_no_chance_is_in_the_latents(untrained_weights: Path, padded: FashionMnist) -> None:
    first_stage = load_first_stage("fashion-kl", untrained_weights / "fashion-kl.safetensors").module
    assert torch.equal(latents_of(padded.images[:2], first_stage), latents_of(padded.images[:2], first_stage))


@pytest.mark.parametrize("initial", [initial_ldm, initial_ldm_kl])
def test_the_loss_of_an_iteration_is_fixed(initial, latents: torch.Tensor) -> None:
    settings = dataclasses.replace(TINY_LDM if initial is initial_ldm else TINY_LDM_KL, batch=2)
    model = initial(settings)
    given = latents[:, : model.config.in_channels]
    with torch.no_grad():
        first = latent_loss(given, LSUN_BEDROOMS, settings)(model, 3)
        torch.rand(3)  # the global generator has no say
        assert latent_loss(given, LSUN_BEDROOMS, settings)(model, 3) == first
        assert latent_loss(given, LSUN_BEDROOMS, settings)(model, 4) != first
        assert latent_loss(given, LSUN_BEDROOMS, dataclasses.replace(settings, seed=1))(model, 3) != first


def test_predicting_nothing_costs_the_variance_of_noise(latents: torch.Tensor) -> None:
    settings = dataclasses.replace(TINY_LDM, batch=512)
    assert float(latent_loss(latents, LSUN_BEDROOMS, settings)(Recorder(), 0)) == pytest.approx(1, abs=0.02)


def test_latents_are_noised_as_the_schedule_says() -> None:
    """Latents of nothing are noise alone, of the deviation that belongs to each timestep."""
    settings, recorder = dataclasses.replace(TINY_LDM, batch=256), Recorder()
    latent_loss(torch.zeros(1, 64, 16, 16), STABLE_DIFFUSION, settings)(recorder, 0)
    expected = torch.from_numpy(1 - signal_levels(STABLE_DIFFUSION)).sqrt()[recorder.timesteps]
    found = recorder.latents.flatten(1).std(dim=1).double()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-3)


def test_wordings_of_many_garments_are_tokens_of_each(said: list[Garment], tokenizer: CLIPTokenizer) -> None:
    for template in range(len(TEMPLATES)):
        expected = tokens_of([caption(each, template) for each in said], tokenizer)
        assert torch.equal(caption_tokens(said, template, tokenizer), expected)


def test_one_caption_in_ten_is_empty_and_the_others_are_of_their_image_in_any_wording(
    said: list[Garment], tokenizer: CLIPTokenizer
) -> None:
    settings, recorder = dataclasses.replace(TINY_SD, batch=3000), Recorder()
    numbered = torch.arange(len(said)).float().view(-1, 1, 1, 1) * 100  # so that each latent tells its row
    text_loss(numbered, said, STABLE_DIFFUSION, settings, tokenizer)(recorder, 0)
    silent = (recorder.tokens == tokens_of([""], tokenizer)).all(dim=1)
    assert float(silent.float().mean()) == pytest.approx(UNCONDITIONAL, abs=0.02)
    signal = torch.from_numpy(signal_levels(STABLE_DIFFUSION)).sqrt()[recorder.timesteps]
    rows = (recorder.latents.flatten().double() / signal / 100).round()
    is_clear = (recorder.timesteps < 500) & ~silent
    wordings = torch.stack([caption_tokens(said, template, tokenizer) for template in range(len(TEMPLATES))])
    fitting = (wordings[:, rows[is_clear].long()] == recorder.tokens[is_clear]).all(dim=2)
    assert bool(fitting.any(dim=0).all())
    assert bool((fitting.float().mean(dim=1) > 0.1).all())


def test_the_loss_depends_on_the_captions(latents: torch.Tensor, said: list[Garment], tokenizer: CLIPTokenizer) -> None:
    settings = dataclasses.replace(TINY_SD, batch=4)
    model = initial_sd(settings, len(tokenizer), tokenizer.eos_token_id)
    others = [dataclasses.replace(each, name="bag", tone="dark") for each in said]
    with torch.no_grad():
        first = text_loss(latents, said, STABLE_DIFFUSION, settings, tokenizer)(model, 0)
        assert text_loss(latents, said, STABLE_DIFFUSION, settings, tokenizer)(model, 0) == first
        assert text_loss(latents, others, STABLE_DIFFUSION, settings, tokenizer)(model, 0) != first


def test_the_text_encoder_learns_too(latents: torch.Tensor, said: list[Garment], tokenizer: CLIPTokenizer) -> None:
    settings = dataclasses.replace(TINY_SD, batch=2)
    model = initial_sd(settings, len(tokenizer), tokenizer.eos_token_id)
    text_loss(latents, said, STABLE_DIFFUSION, settings, tokenizer)(model, 0).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.text_encoder.get_input_embeddings().weight.grad.abs().max() > 0
