from pathlib import Path

import pytest
import torch

from qbench.diffusion.codecs import DiffusersFirstStage, from_uint8
from qbench.errors import DataError
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.first_stages import FirstStageName, load_first_stage
from qbench.zoo.latent_networks import fashion_kl, tiny_ldm_denoiser
from qbench.zoo.latent_training import latents_of
from qbench.zoo.tensor_file import write_tensors

FACTORS = {"fashion-vq": 0.5, "fashion-kl": 0.25}
"""As the untrained files say."""


@pytest.mark.parametrize("name", FACTORS)
def test_the_factor_comes_with_the_weights(untrained_weights: Path, padded: FashionMnist, name: FirstStageName) -> None:
    found = load_first_stage(name, untrained_weights / f"{name}.safetensors")
    assert found.factor == FACTORS[name]
    assert not found.module.training
    assert not any(parameter.requires_grad for parameter in found.module.parameters())
    encoded = DiffusersFirstStage(found.module).encode(from_uint8(torch.from_numpy(padded.images[:3])))
    torch.testing.assert_close(encoded, found.factor * latents_of(padded.images[:3], found.module))


@pytest.mark.usefixtures("untrained")
def test_the_shipped_one_is_found_by_its_name() -> None:
    assert load_first_stage("fashion-kl").factor == FACTORS["fashion-kl"]


def test_weights_without_a_factor_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", fashion_kl().state_dict(), {})
    with pytest.raises(DataError, match=r"does not say the factor of its latents: finish the training of fashion-kl"):
        load_first_stage("fashion-kl", tmp_path / "w.safetensors")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", tiny_ldm_denoiser().state_dict(), {})
    with pytest.raises(DataError, match="another network, not of VQModel"):
        load_first_stage("fashion-vq", tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="does not exist"):
        load_first_stage("fashion-vq", tmp_path / "none.safetensors")
