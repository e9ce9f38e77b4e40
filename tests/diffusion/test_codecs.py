from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor, nn
from torch.nn import functional

from qbench.diffusion.codecs import DiffusersFirstStage, Identity, PixelUnshuffle, from_uint8, to_uint8


def test_blocks_of_pixels_become_channels() -> None:
    images = torch.arange(2 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4)
    latents = PixelUnshuffle(2).encode(images)
    assert latents.shape == (1, 8, 2, 2)
    # Channel c * factor**2 + dy * factor + dx holds pixel (y * factor + dy, x * factor + dx) of channel c.
    assert latents[0, 1 * 4 + 1 * 2 + 0, 1, 1] == images[0, 1, 3, 2]


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_decoding_undoes_encoding_to_the_bit(factor: int) -> None:
    images = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codec = PixelUnshuffle(factor)
    assert torch.equal(codec.decode(codec.encode(images)), images)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_encoding_undoes_decoding_to_the_bit(factor: int) -> None:
    latents = torch.randn(3, 2 * factor**2, 5, 3, generator=torch.Generator().manual_seed(0))
    codec = PixelUnshuffle(factor)
    assert torch.equal(codec.encode(codec.decode(latents)), latents)


def test_every_image_is_encoded_by_itself() -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    codec = PixelUnshuffle(2)
    assert torch.equal(codec.encode(images)[2:3], codec.encode(images[2:3]))


def test_a_real_image_survives_the_way_to_latents_and_back() -> None:
    image = torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    codec = PixelUnshuffle(2)
    assert torch.equal(to_uint8(codec.decode(codec.encode(from_uint8(image)))), image)


def test_every_byte_survives_the_way_there_and_back() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(bytes_)), bytes_)
    assert from_uint8(bytes_).dtype == torch.float32
    assert from_uint8(bytes_)[[0, -1]].tolist() == [-1.0, 1.0]


def test_images_are_rounded_to_the_nearest_byte() -> None:
    exact = torch.arange(256, dtype=torch.float64)
    for shift in (-0.49, 0.49):
        assert torch.equal(to_uint8((exact + shift) / 127.5 - 1), exact.to(torch.uint8))


def test_what_lies_outside_is_clamped() -> None:
    outside = torch.tensor([-5.0, -1.0001, 1.0001, 5.0, float("inf"), -float("inf")])
    assert to_uint8(outside).tolist() == [0, 0, 255, 255, 255, 0]


def test_the_input_is_left_as_it_is() -> None:
    images = torch.tensor([0.1, 3.0])
    to_uint8(images)
    assert torch.equal(images, torch.tensor([0.1, 3.0]))


class Recording(nn.Module):
    """A first stage that halves the sides and remembers what it was called with."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(block_out_channels=(8, 16), **options)
        self.batches: list[int] = []
        self.weight = nn.Parameter(torch.full((), 2.0))

    def encode(self, images: Tensor) -> Any:
        self.batches.append(len(images))
        return SimpleNamespace(latents=functional.avg_pool2d(images, 2) * self.weight)

    def decode(self, latents: Tensor) -> Any:
        self.batches.append(len(latents))
        return SimpleNamespace(sample=functional.interpolate(latents, scale_factor=2) / self.weight)


def test_pixels_are_their_own_latents() -> None:
    images = torch.rand(2, 1, 4, 4)
    assert Identity().encode(images) is images
    assert Identity().decode(images) is images


@pytest.mark.parametrize(("side", "expected"), [(256, [4, 4, 1]), (512, [1] * 9), (1024, [1] * 9), (32, [9])])
def test_a_first_stage_sees_few_images_at_a_time(side: int, expected: list[int]) -> None:
    stage = Recording(scaling_factor=1.0)
    codec = DiffusersFirstStage(stage)
    images = torch.zeros(9, 1, side, side)
    latents = codec.encode(images)
    assert latents.shape == (9, 1, side // 2, side // 2)
    assert codec.decode(latents).shape == images.shape
    assert stage.batches == 2 * expected


def test_latents_are_shifted_and_scaled() -> None:
    codec = DiffusersFirstStage(Recording(scaling_factor=0.5, shift_factor=3.0))
    images = torch.full((2, 1, 4, 4), 2.0)
    latents = codec.encode(images)
    assert torch.equal(latents, torch.full((2, 1, 2, 2), 0.5))  # (2 * 2 - 3) * 0.5
    assert torch.equal(codec.decode(latents), images)
    assert not latents.requires_grad


def test_a_configuration_without_a_shift() -> None:
    assert DiffusersFirstStage(Recording(scaling_factor=0.5, shift_factor=None)).shift == 0.0
    assert DiffusersFirstStage(Recording(scaling_factor=0.5)).shift == 0.0


def test_vq_decodes_through_its_codebook_and_kl_encodes_without_chance() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 2,
        "latent_channels": 2,
    }
    vq = VQModel(**options, num_vq_embeddings=8, scaling_factor=1.0).eval()
    nn.init.normal_(vq.quantize.embedding.weight)
    words = vq.quantize.embedding.weight.detach()[torch.tensor([[1, 5], [7, 2]])].permute(2, 0, 1)[None]
    codec = DiffusersFirstStage(vq)
    assert torch.equal(codec.decode(words), codec.decode(words + 0.01))
    kl = DiffusersFirstStage(AutoencoderKL(**options, scaling_factor=1.0).eval())
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    assert torch.equal(kl.encode(images), kl.encode(images))
    assert torch.allclose(kl.encode(images)[1:2], kl.encode(images[1:2]), atol=1e-6)
