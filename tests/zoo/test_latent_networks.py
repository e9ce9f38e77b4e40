import pytest
import torch
from torch import nn

from qbench.zoo import latent_networks
from qbench.zoo.caption_tokenizer import load_tokenizer, tokens_of
from qbench.zoo.figures import parameter_count
from qbench.zoo.latent_networks import (
    TinySD,
    clip_tiny,
    fashion_kl,
    fashion_vq,
    tiny_ldm_denoiser,
    tiny_ldm_kl_denoiser,
)

VOCABULARY, END_TOKEN = 162, 161


@pytest.mark.parametrize(
    ("build", "channels", "parameters"), [(tiny_ldm_denoiser, 3, 1_575_219), (tiny_ldm_kl_denoiser, 4, 1_388_004)]
)
def test_unconditional_denoisers_map_latents_to_noise(build, channels: int, parameters: int) -> None:
    model = build().eval()
    with torch.no_grad():
        noise = model(torch.randn(2, channels, 8, 8), torch.tensor([0, 999])).sample
    assert noise.shape == (2, channels, 8, 8)
    assert parameter_count(model) == parameters


def test_the_churches_layout_scales_and_shifts_and_resizes_by_residual_blocks() -> None:
    model = tiny_ldm_kl_denoiser()
    blocks = [block for part in (*model.down_blocks, *model.up_blocks) for block in part.resnets]
    assert {block.time_embedding_norm for block in blocks} == {"scale_shift"}
    assert type(model.down_blocks[0].downsamplers[0]).__name__ == "ResnetBlock2D"
    assert type(model.up_blocks[0].upsamplers[0]).__name__ == "ResnetBlock2D"
    assert {block.time_embedding_norm for part in tiny_ldm_denoiser().down_blocks for block in part.resnets} == {
        "default"
    }


def test_first_stages_shrink_by_four() -> None:
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        vq, kl = fashion_vq().eval(), fashion_kl().eval()
        codes = vq.encode(images).latents
        assert codes.shape == (2, 3, 8, 8)
        assert vq.decode(codes).sample.shape == images.shape
        latents = kl.encode(images).latent_dist.mode()
        assert latents.shape == (2, 4, 8, 8)
        assert kl.decode(latents).sample.shape == images.shape
    assert vq.quantize.embedding.weight.shape == (512, 3)


def test_tiny_sd_reads_captions_up_to_their_end() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinySD(VOCABULARY, END_TOKEN).eval()
    tokenizer = load_tokenizer()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    with torch.no_grad():
        noise = model(latents, torch.full((3,), 500), tokens_of(["a bag", "a bag", "a coat"], tokenizer))
    assert noise.shape == (3, 4, 8, 8)
    torch.testing.assert_close(noise[0], noise[1])
    assert (noise[0] - noise[2]).abs().max() > 1e-4
    assert parameter_count(model.unet) == 1_665_364
    assert parameter_count(model.text_encoder) == 78_464


def test_clip_tiny_embeds_images_and_captions() -> None:
    model = clip_tiny(VOCABULARY).eval()
    with torch.no_grad():
        image, text, scale = model(torch.rand(2, 3, 32, 32), tokens_of(["a bag", ""], load_tokenizer()))
    assert (image.shape, text.shape, scale.shape) == ((2, 64), (2, 64), ())
    torch.testing.assert_close(image.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    assert parameter_count(model) == 277_185


@pytest.mark.parametrize("nested", [False, True])
def test_names_in_our_files_do_not_depend_on_the_release_of_transformers(
    nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some releases put the text encoder into one more module, ``text_model``."""

    def text_encoder(vocabulary: int, end: int) -> nn.Module:
        inner = nn.ModuleDict({"embeddings": nn.Embedding(vocabulary, 4)})
        return nn.ModuleDict({"text_model": inner}) if nested else inner

    monkeypatch.setattr(latent_networks, "tiny_sd_text_encoder", text_encoder)
    model = latent_networks.TinySD(3, 2)
    state = model.state_dict()
    assert {name for name in state if name.startswith("text")} == {"text_encoder.embeddings.weight"}
    state["text_encoder.embeddings.weight"] = torch.ones(3, 4)
    model.load_state_dict(state)
    assert model.state_dict()["text_encoder.embeddings.weight"].eq(1).all()
    assert set(state) == set(model.state_dict())
