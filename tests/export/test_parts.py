"""What a folder of diffusers holds of a model, and what it does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel

from qbench.bits import FULL_PRECISION
from qbench.diffusion.codecs import Codec, DiffusersFirstStage, Identity, PixelUnshuffle
from qbench.diffusion.structures import DIFFUSERS_UNET
from qbench.errors import DataError, ExportError
from qbench.export.parts import _with_zeros, write_parts
from qbench.quant.model import QuantModel
from qbench.stages.denoiser import Denoiser
from qbench.workloads.loading import set_heads
from qbench.workloads.pipeline_folder import DENOISERS, read_part

SMALL: dict[str, Any] = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "norm_num_groups": 4}
UNET: dict[str, Any] = {
    **SMALL,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}


class OwnUNet(UNet2DModel):
    """Derived, so anything may be different."""


class OwnIdentity(Identity):
    """Likewise."""


class OwnStage(AutoencoderKL):
    """Likewise."""


def denoiser(unet: Any = None, codec: Codec | None = None, conditioning: Any = None) -> Denoiser:
    model = QuantModel(unet or UNet2DModel(**UNET), DIFFUSERS_UNET, FULL_PRECISION)
    return Denoiser(model, codec or Identity(), torch.device("cpu"), conditioning)


def text_unet() -> Any:
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    return UNet2DConditionModel(**SMALL, **blocks, block_out_channels=(8,), layers_per_block=1, cross_attention_dim=8)


def test_heads_that_the_configuration_does_not_say(tmp_path: Path) -> None:
    assert write_parts(denoiser(), "mine", tmp_path).heads == {}
    unet = UNet2DModel(**UNET)
    set_heads(unet, {"mid_block.attentions.0": 4})
    described = write_parts(denoiser(unet), "mine", tmp_path)
    assert described.heads == {"mid_block.attentions.0": 4}
    again = _with_zeros(read_part(tmp_path / "unet", DENOISERS), 10**9)
    set_heads(again, described.heads)
    for name in ("mid_block.attentions.0", "down_blocks.1.attentions.0"):
        found, expected = (each.get_submodule(name) for each in (again, unet))
        assert (found.heads, found.scale) == (expected.heads, expected.scale)


def test_what_it_says_of_codecs(tmp_path: Path) -> None:
    assert write_parts(denoiser(), "mine", tmp_path).codec.kind == "identity"
    assert write_parts(denoiser(codec=PixelUnshuffle(4)), "mine", tmp_path).codec.factor == 4
    assert not (tmp_path / "vae").exists()
    assert (
        write_parts(denoiser(codec=DiffusersFirstStage(AutoencoderKL())), "mine", tmp_path).codec.kind == "first-stage"
    )
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"unet": OwnUNet(**UNET)}, "the denoiser of the workload 'mine' is a OwnUNet, a class of its own"),
        ({"codec": OwnIdentity()}, "the codec of the workload 'mine' is a OwnIdentity"),
        ({"codec": DiffusersFirstStage(OwnStage())}, "the first stage of the workload 'mine' is a OwnStage"),
        ({"unet": text_unet(), "conditioning": list}, "the conditioning of the workload 'mine' is a type"),
        ({"unet": text_unet()}, "'mine' has a UNet2DConditionModel without captions"),
        ({"conditioning": list}, "'mine' has a UNet2DModel with captions"),
    ],
    ids=["denoiser", "codec", "first stage", "conditioning", "no captions", "captions"],
)
def test_classes_of_ones_own_are_refused(parts: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=sentence):
        write_parts(denoiser(**parts), "mine", tmp_path)


def test_a_configuration_that_nothing_can_be_built_from(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel", "down_block_types": ["DownBlock2D"]}')
    with pytest.raises(DataError, match="describes no UNet2DModel that can be built"):
        _with_zeros(read_part(tmp_path, DENOISERS), 10**9)
