import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from originals import NAMES, SCALE_FACTOR, original
from safetensors.torch import save_file

from qbench.diffusion.codecs import DiffusersFirstStage
from qbench.diffusion.structures import State
from qbench.diffusion.unet_structure import unet_structure
from qbench.errors import DataError
from qbench.workloads.conversion import convert
from qbench.workloads.loading import load_pipeline_folder, set_heads
from qbench.workloads.pipeline_folder import inspect_folder
from qbench.workloads.text_conditioning import CLIPConditioning

TOLERANCE = 1e-5


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(converted: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    config = converted.loaded.denoiser.config
    context = {}
    if converted.loaded.conditioning is not None:
        context["encoder_hidden_states"] = draw(2, 77, config.cross_attention_dim, seed=1)
    return draw(2, config.in_channels, config.sample_size, config.sample_size), torch.tensor([3, 871]), context


def double(module: Any) -> Any:
    """In float64, where two ways to compute the same do not differ by their rounding."""
    return copy.deepcopy(module).double()


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.isfinite().all()
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < TOLERANCE


def test_the_denoiser_is_the_original(converted: Any) -> None:
    x, timesteps, context = inputs(converted)
    x, context = x.double(), {name: each.double() for name, each in context.items()}
    expected = double(converted.original.unet)(x, timesteps, *context.values())
    assert_same(double(converted.loaded.denoiser)(x, timesteps, **context).sample, expected)


def test_the_first_stage_is_the_original(converted: Any) -> None:
    model = converted.original
    factor = 2 ** (len(model.family.first_stage["block_out_channels"]) - 1)
    images = draw(2, 3, 16 * factor, 16 * factor).clamp(-1, 1).double()
    codec, stage = DiffusersFirstStage(double(converted.loaded.codec.model)), double(model.first_stage)
    latents = codec.encode(images)
    expected = stage.encode(images) * model.scale_factor
    assert latents.shape == (2, model.family.denoiser["in_channels"], 16, 16)
    assert_same(latents, expected)
    assert_same(codec.decode(expected), stage.decode(expected / model.scale_factor))


def test_only_the_text_model_has_a_conditioning_and_it_is_the_original(converted: Any) -> None:
    conditioning = converted.loaded.conditioning
    assert (conditioning is None) == (converted.original.text is None)
    if conditioning is None:
        return
    captions = ["", "a photo of a cat", "Zwei Züge\n— 12 cars, and a dog's bowl!" * 20, "\x00\x07 tab\tend", "☃ 日本"]
    tokens = conditioning.tokens(captions)
    assert tokens.shape == (5, 77)
    exact = CLIPConditioning(conditioning.tokenizer, double(conditioning.model))
    assert_same(exact(captions)["encoder_hidden_states"], double(converted.original.text)(tokens))


def test_the_tokenizer_is_that_of_clip(converted: Any) -> None:
    from open_clip import SimpleTokenizer

    if converted.loaded.conditioning is None:
        return
    captions = ["a photo of a cat", "An  ELEPHANT's trunk, 3 people & co.", "skateboarder doing tricks" * 30, ""]
    tokens = converted.loaded.conditioning.tokens(captions)
    theirs = SimpleTokenizer()(captions)
    for ours, expected in zip(tokens.tolist(), theirs.tolist(), strict=True):
        length = expected.index(49407) + 1
        assert ours[:length] == expected[:length]
        assert set(ours[length:]) <= {49407}  # SD pads with the end of the text, open_clip with zeros


def test_the_parts_are_frozen_and_in_full_precision(converted: Any) -> None:
    networks = [converted.loaded.denoiser, converted.loaded.codec.model]
    if converted.loaded.conditioning is not None:
        networks.append(converted.loaded.conditioning.model)
    for network in networks:
        assert not network.training
        assert all(each.dtype == torch.float32 and not each.requires_grad for each in network.parameters())


def test_segments_compose_to_the_forward_to_the_bit(converted: Any, one_thread: None) -> None:
    unet = converted.loaded.denoiser
    structure = unet_structure(unet)
    x, timesteps, context = inputs(converted)
    expected = unet(x, timesteps, **context).sample
    assert torch.equal(structure.compose(unet, State(x, timesteps, context=context)), expected)
    resnets = [resnet for block in unet.up_blocks for resnet in block.resnets]
    assert len(structure.splits) == len(resnets)
    assert set(structure.splits) == {
        f"up_blocks.{i}.resnets.{j}.conv_shortcut" for i, b in enumerate(unet.up_blocks) for j in range(len(b.resnets))
    }


def test_a_family_knows_the_shapes_of_what_it_becomes(converted: Any) -> None:
    folder = inspect_folder(converted.folder)
    assert converted.original.family.shapes == (folder.latent_shape, folder.image_shape)


def test_what_no_configuration_says_is_beside_it(converted: Any) -> None:
    beyond = json.loads((converted.folder / "qbench.json").read_text())
    assert beyond["averaged"] is True
    assert beyond["heads"] == converted.original.family.heads
    assert beyond["family"] == converted.original.family.name
    assert (converted.folder / "model_index.json").exists() == (converted.original.family.pipeline is not None)


def test_diffusers_own_pipeline_reads_the_folder(converted: Any) -> None:
    import diffusers

    family = converted.original.family
    if family.pipeline is None:
        return
    pipeline = getattr(diffusers, family.pipeline).from_pretrained(converted.folder, local_files_only=True)
    assert type(pipeline).__name__ == family.pipeline
    x, timesteps, context = inputs(converted)
    expected = converted.loaded.denoiser(x, timesteps, **context).sample
    assert torch.equal(pipeline.unet(x, timesteps, **context).sample, expected)


def test_without_the_heads_the_churches_would_be_another_network(tmp_path: Path) -> None:
    model = original("churches")
    convert(model.write(tmp_path / "model.ckpt"), replace(model.family, heads=None), tmp_path)
    x, timesteps = draw(2, 4, 32, 32), torch.tensor([3, 871])
    expected = model.unet(x, timesteps)
    unet = load_pipeline_folder(tmp_path).denoiser
    assert (unet(x, timesteps).sample - expected).abs().max() > 1e-2
    set_heads(unet, 8)
    # The order of queries, keys and values depends on the heads as well, so the right heads come too late now.
    assert (unet(x, timesteps).sample - expected).abs().max() > 1e-2


def test_heads_that_do_not_divide_a_width() -> None:
    from diffusers import UNet2DModel

    unet = UNet2DModel(**original("churches").family.denoiser)
    with pytest.raises(DataError, match="wide, which 7 heads do not divide"):
        set_heads(unet, 7)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_without_averages_and_as_safetensors(name: str, tmp_path: Path) -> None:
    model = original(name)
    state = model.state(ema=False)
    save_file({each: tensor.contiguous() for each, tensor in state.items()}, tmp_path / "model.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    convert(tmp_path / "model.safetensors", model.family, folder)
    assert json.loads((folder / "qbench.json").read_text())["averaged"] is False
    unet = double(load_pipeline_folder(folder).denoiser)
    x = draw(1, unet.config.in_channels, 16, 16).double()
    context = () if model.text is None else (draw(1, 77, 16).double(),)
    assert_same(unet(x, torch.tensor([40]), *context).sample, double(model.unet)(x, torch.tensor([40]), *context))


def test_the_churches_factor_comes_from_the_checkpoint(converted: Any) -> None:
    if converted.original.family.heads is not None:
        assert converted.loaded.codec.scale == pytest.approx(SCALE_FACTOR, abs=1e-7)


def test_a_checkpoint_in_half_precision_becomes_single(tmp_path: Path) -> None:
    model = original("bedrooms")
    halves = {name: tensor.half() for name, tensor in model.state(ema=False).items()}
    torch.save(halves, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", model.family, tmp_path)
    x = draw(1, 3, 16, 16)
    found = load_pipeline_folder(tmp_path).denoiser(x, 40).sample
    assert (found - model.unet(x, torch.tensor([40]))).abs().max() < 0.05


def refused(model: Any, state: dict[str, Any], folder: Path, family: Any = None) -> str:
    torch.save({"state_dict": state}, folder / "model.ckpt")
    target = folder / "converted"
    target.mkdir()
    with pytest.raises(DataError) as error:
        convert(folder / "model.ckpt", family or model.family, target)
    assert list(target.iterdir()) == []
    text = str(error.value)
    assert str(folder / "model.ckpt") in text
    assert "\n" not in text
    return text


def test_another_architecture(tmp_path: Path) -> None:
    text = refused(original("churches"), original("churches").state(), tmp_path, original("bedrooms").family)
    assert (
        "is not LDM-4 of LSUN-Bedrooms (lsun_beds256): of the tensors expected under model.diffusion_model it" in text
    )


def test_another_width(tmp_path: Path) -> None:
    family = original("bedrooms").family
    wider = replace(family, denoiser={**family.denoiser, "block_out_channels": (16, 32, 48, 64)})
    text = refused(original("bedrooms"), original("bedrooms").state(), tmp_path, wider)
    assert "has in another shape model.diffusion_model.input_blocks.0.0.bias is 8 for 16, " in text
    assert " more" in text


def test_no_denoiser_at_all(tmp_path: Path) -> None:
    text = refused(original("bedrooms"), {"fc.weight": torch.zeros(3, 3)}, tmp_path)
    assert "lacks model.diffusion_model.input_blocks.0.0.bias, " in text


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("bedrooms", "model.diffusion_model.input_blocks.4.1.qkv.weight"),
        ("churches", "first_stage_model.decoder.up.3.block.2.conv1.weight"),
        ("stable-diffusion", "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.bias"),
    ],
)
def test_a_missing_and_an_unexpected_key(name: str, key: str, tmp_path: Path) -> None:
    state = original(name).state(ema=False)
    without = {each: tensor for each, tensor in state.items() if each != key}
    (tmp_path / "missing").mkdir()
    assert f"it lacks {key}" in refused(original(name), without, tmp_path / "missing")
    (tmp_path / "more").mkdir()
    beyond = state | {f"{key}.more": torch.zeros(1)}
    assert f"it has beyond them {key}.more" in refused(original(name), beyond, tmp_path / "more")


def test_the_factor_of_latents_is_not_guessed(tmp_path: Path) -> None:
    state = original("churches").state(ema=False)
    (tmp_path / "several").mkdir()
    text = refused(original("churches"), state | {"scale_factor": torch.ones(2)}, tmp_path / "several")
    assert "it has no single number scale_factor, which latents are multiplied with" in text
    del state["scale_factor"]
    assert "it has no single number scale_factor" in refused(original("churches"), state, tmp_path)


def test_averages_of_other_weights(tmp_path: Path) -> None:
    state = original("bedrooms").state()
    state["model_ema.diffusion_modelother"] = state.pop("model_ema.diffusion_modelout2bias")
    text = refused(original("bedrooms"), state, tmp_path)
    assert "averaged weights (EMA) that are not those of its weights" in text
