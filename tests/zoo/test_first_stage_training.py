import dataclasses
from pathlib import Path

import pytest
import torch

from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.first_stage_training import FASHION_KL, FASHION_VQ, KL_WEIGHT, initial_kl, initial_vq, kl_loss, vq_loss
from qbench.zoo.loop import run_training

BOTH = pytest.mark.parametrize(
    ("recipe", "initial", "loss_of"),
    [(FASHION_VQ, initial_vq, vq_loss), (FASHION_KL, initial_kl, kl_loss)],
    ids=["fashion-vq", "fashion-kl"],
)


@BOTH
def test_the_loss_falls(recipe, initial, loss_of, tmp_path: Path, padded: FashionMnist) -> None:
    settings = dataclasses.replace(recipe, iterations=15, batch=4, warmup=2)
    model, loss = initial(settings), loss_of(padded.images[:4], settings)
    with torch.no_grad():
        before = float(loss(model, 0))
    run_training(model, loss, settings, tmp_path)
    with torch.no_grad():
        assert float(loss(model, 0)) < 0.8 * before


@BOTH
def test_the_loss_of_an_iteration_is_fixed(recipe, initial, loss_of, padded: FashionMnist) -> None:
    settings = dataclasses.replace(recipe, batch=2)
    model, loss = initial(settings), loss_of(padded.images, settings)
    with torch.no_grad():
        first = loss(model, 5)
        torch.rand(3)  # the global generator has no say
        assert loss(model, 5) == first
        assert loss(model, 6) != first


@BOTH
def test_initialization_is_the_seeds(recipe, initial, loss_of) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (initial(dataclasses.replace(recipe, seed=seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not torch.equal(one["encoder.conv_in.weight"], other["encoder.conv_in.weight"])


def test_both_sides_of_the_codebook_are_pulled_together(padded: FashionMnist) -> None:
    settings = dataclasses.replace(FASHION_VQ, batch=2)
    model = initial_vq(settings)
    vq_loss(padded.images, settings)(model, 0).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.quantize.embedding.weight.grad.abs().max() > 0
    assert model.encoder.conv_in.weight.grad.abs().max() > 0


def test_the_divergence_counts_a_little(padded: FashionMnist, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5 (mean^2 + variance - 1 - log variance) for each latent number, by hand."""
    settings = dataclasses.replace(FASHION_KL, batch=2)
    model, loss = initial_kl(settings), kl_loss(padded.images, settings)
    with torch.no_grad():
        whole = loss(model, 0)
        posteriors = []
        encode = model.encode
        monkeypatch.setattr(model, "encode", lambda batch: posteriors.append(encode(batch)) or posteriors[-1])
        monkeypatch.setattr("qbench.zoo.first_stage_training.KL_WEIGHT", 0.0)
        error = loss(model, 0)
        found = posteriors[0].latent_dist
        divergence = 0.5 * (found.mean**2 + found.var - 1 - found.logvar)
    torch.testing.assert_close(whole - error, KL_WEIGHT * divergence.mean(), rtol=0.02, atol=1e-7)
