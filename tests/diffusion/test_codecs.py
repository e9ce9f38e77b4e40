import pytest
import torch

from qbench.diffusion.codecs import PixelUnshuffle, from_uint8, to_uint8


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
