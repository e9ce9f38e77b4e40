"""The shipped first stages, loaded with the factor that scales their latents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusers import AutoencoderKL, VQModel

from qbench.errors import DataError
from qbench.zoo.latent_networks import fashion_kl, fashion_vq
from qbench.zoo.networks import load_weights
from qbench.zoo.paths import weights_path
from qbench.zoo.tensor_file import read_tensors

FirstStageName = Literal["fashion-vq", "fashion-kl"]

FACTOR = "scaling_factor"
"""Under which the factor stands in the file's metadata."""


@dataclass(frozen=True)
class FirstStage:
    """A first stage, float32, frozen and in evaluation mode."""

    module: VQModel | AutoencoderKL
    """Maps images [N, 1, 32, 32] in [-1, 1] to latents [N, C, 8, 8] and back."""
    factor: float
    """What latents are multiplied with before a denoiser sees them: their standard deviation is 1 then."""


def load_first_stage(name: FirstStageName, path: Path | None = None) -> FirstStage:
    """Load a first stage.

    Args:
        name: Which one.
        path: A safetensors file; None means the shipped one.

    Raises:
        DataError: The file is missing, holds another network, or does not say its factor.
    """
    path = weights_path(name) if path is None else path
    module = fashion_vq() if name == "fashion-vq" else fashion_kl()
    load_weights(module, path)
    said = read_tensors(path).metadata.get(FACTOR)
    if said is None:
        raise DataError(f"{path} does not say the factor of its latents: finish the training of {name} first.")
    module.register_to_config(scaling_factor=float(said))
    return FirstStage(module, float(said))
