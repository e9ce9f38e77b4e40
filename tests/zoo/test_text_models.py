from pathlib import Path

import pytest
import torch

from qbench.errors import DataError
from qbench.workloads.text_conditioning import CLIPConditioning
from qbench.zoo.text_models import load_clip_tiny, load_tiny_sd


@pytest.fixture
def conditioning(untrained: Path) -> CLIPConditioning:
    return load_tiny_sd()[1]


def test_each_caption_is_conditioned_on_by_itself(conditioning: CLIPConditioning) -> None:
    said = ["a bag", "", "a photo of a plain dark ankle boot, tall", "bag " * 10_000]
    together = conditioning(said)["encoder_hidden_states"]
    assert together.shape == (4, 16, 64)
    assert not together.requires_grad
    for caption, found in zip(said, together, strict=True):
        torch.testing.assert_close(conditioning([caption])["encoder_hidden_states"][0], found, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_models_are_loaded_frozen_and_ready(untrained: Path) -> None:
    denoiser, conditioning = load_tiny_sd()
    for model in (denoiser, conditioning.model, load_clip_tiny()):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_of_another_network_are_refused(untrained: Path) -> None:
    with pytest.raises(DataError, match="another network, not of TinySD"):
        load_tiny_sd(untrained / "clip-tiny.safetensors")
    with pytest.raises(DataError, match="another network, not of CLIP"):
        load_clip_tiny(untrained / "tiny-sd.safetensors")
