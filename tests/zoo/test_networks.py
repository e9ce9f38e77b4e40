from pathlib import Path

import pytest
import torch

from qbench.errors import DataError
from qbench.zoo.figures import parameter_count
from qbench.zoo.networks import FashionFeatures, load_fashion_features, load_tiny_ddim, tiny_ddim_denoiser
from qbench.zoo.tensor_file import write_tensors


def test_the_denoiser_maps_latents_to_noise() -> None:
    model = tiny_ddim_denoiser().eval()
    with torch.no_grad():
        assert model(torch.randn(2, 4, 8, 8), torch.tensor([0, 999])).sample.shape == (2, 4, 8, 8)
    assert parameter_count(model) == 1_576_084


def test_the_denoiser_has_attention_and_skip_concatenations() -> None:
    model = tiny_ddim_denoiser()
    assert [type(block).__name__ for block in model.down_blocks] == ["DownBlock2D", "AttnDownBlock2D"]
    assert len(model.mid_block.attentions) == 1
    widths = [resnet.conv1.in_channels for block in model.up_blocks for resnet in block.resnets]
    assert widths == [96 + 96, 96 + 48, 96 + 48, 48 + 48]


def test_the_features_have_their_shapes() -> None:
    network = FashionFeatures().eval()
    with torch.no_grad():
        output = network(torch.rand(3, 1, 16, 16) * 2 - 1)
    assert (output.pooled.shape, output.spatial.shape, output.logits.shape) == ((3, 64), (3, 128), (3, 10))
    assert parameter_count(network) == 224_298


def test_spatial_features_go_position_by_position() -> None:
    network = FashionFeatures().eval()
    maps: list[torch.Tensor] = []
    network.down.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        spatial = network(torch.rand(2, 1, 16, 16)).spatial
    assert maps[0].shape == (2, 96, 4, 4)
    assert torch.equal(spatial[1, 8 * 7 : 8 * 8], maps[0][1, :8, 1, 3])


def test_features_do_not_depend_on_the_batch() -> None:
    network = load_fashion_features()
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    neighbours = torch.cat([images[:1], torch.full((5, 1, 16, 16), 1.0)])
    for alone, together in zip(network(images), network(neighbours), strict=True):
        torch.testing.assert_close(alone[0], together[0], rtol=1e-5, atol=1e-5)


def test_weights_load_in_float32_frozen_and_in_evaluation_mode(tmp_path: Path) -> None:
    original = tiny_ddim_denoiser()
    halves = {name: tensor.half() for name, tensor in original.state_dict().items()}
    write_tensors(tmp_path / "w.safetensors", halves, {})
    loaded = load_tiny_ddim(tmp_path / "w.safetensors")
    assert not loaded.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
    assert all(torch.equal(tensor, halves[name].float()) for name, tensor in loaded.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", FashionFeatures().state_dict(), {})
    with pytest.raises(DataError, match="another network"):
        load_tiny_ddim(tmp_path / "w.safetensors")


def test_missing_weights_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_fashion_features(tmp_path / "none.safetensors")
