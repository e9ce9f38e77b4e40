"""The networks of the zoo: a tiny denoiser and the classifier whose features judge its images."""

from pathlib import Path
from typing import NamedTuple

from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle, silu

from qbench.errors import DataError
from qbench.zoo.paths import weights_path
from qbench.zoo.tensor_file import read_tensors

LATENT_SHAPE = (4, 8, 8)
"""Channels, height and width of what the tiny denoiser sees: a 16x16 grey image, pixel-unshuffled by 2."""

IMAGE_SHAPE = (1, 16, 16)
"""Channels, height and width of an image."""

PIXELS_PER_BLOCK = 2
"""Side of the blocks of pixels that become channels."""

SPATIAL_CHANNELS = 8
"""How many channels of the 4x4 map make up the spatial features."""


def tiny_ddim_denoiser() -> UNet2DModel:
    """A freshly initialized tiny noise-estimation network with the structure of the DDPM UNet.

    Takes latents [N, 4, 8, 8] and timesteps [N], gives noise [N, 4, 8, 8]; 1.6 million parameters.
    """
    return UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        num_train_timesteps=1000,
    )


class FashionOutput(NamedTuple):
    """What the classifier says about N images."""

    pooled: Tensor
    """Last map averaged over positions [N, 64], the counterpart of Inception's pool features in FID."""
    spatial: Tensor
    """First 8 channels of a 4x4 map in the middle of the network [N, 128], position by position (as sFID does)."""
    logits: Tensor
    """Unnormalized class scores [N, 10]."""


class FashionFeatures(nn.Module):
    """Small convolutional classifier of 16x16 grey images.

    Normalization is per image (group norm), so an image's features do not depend on its neighbours in the batch.
    """

    def __init__(self) -> None:
        """Creates the layers with PyTorch's default initialization."""
        super().__init__()
        self.stem = _ConvolutionNorm(4, 48)
        self.fine = _ConvolutionNorm(48, 64)
        self.down = _ConvolutionNorm(64, 96, stride=2)
        self.coarse = _ConvolutionNorm(96, 96)
        self.last = _ConvolutionNorm(96, 64)
        self.classify = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> FashionOutput:
        """Features and class scores.

        Args:
            images: Grey images [N, 1, 16, 16] in [-1, 1].
        """
        fine: Tensor = self.fine(self.stem(pixel_unshuffle(images, PIXELS_PER_BLOCK)))
        middle: Tensor = self.down(fine)
        pooled = self.last(middle + self.coarse(middle)).mean(dim=(2, 3))
        spatial = middle[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return FashionOutput(pooled, spatial, self.classify(pooled))


class _ConvolutionNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return silu(self.norm(self.convolution(x)))


def load_tiny_ddim(path: Path | None = None) -> UNet2DModel:
    """The trained tiny denoiser in float32, frozen and in evaluation mode.

    Args:
        path: A safetensors file; None means the shipped one.

    Raises:
        DataError: The file is missing or holds another network.
    """
    model = tiny_ddim_denoiser()
    load_weights(model, weights_path("tiny-ddim") if path is None else path)
    return model


def load_fashion_features(path: Path | None = None) -> FashionFeatures:
    """The trained classifier in float32, frozen and in evaluation mode.

    Args:
        path: A safetensors file; None means the shipped one.

    Raises:
        DataError: The file is missing or holds another network.
    """
    model = FashionFeatures()
    load_weights(model, weights_path("fashion-features") if path is None else path)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts the weights of a file into a network, in float32, and freezes it in evaluation mode.

    Args:
        model: The network as built here.
        path: A safetensors file.

    Raises:
        DataError: The file is missing or holds another network.
    """
    tensors = read_tensors(path).tensors
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise DataError(f"{path} holds the weights of another network, not of {type(model).__name__} as built here.")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    model.eval()
    model.requires_grad_(False)
