import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, LDMPipeline, UNet2DModel, VQModel
from originals import original
from safetensors.torch import load_file, save_file

from qbench.diffusion.codecs import DiffusersFirstStage, Identity
from qbench.errors import DataError
from qbench.workloads.conversion import convert
from qbench.workloads.loading import load_pipeline_folder
from qbench.workloads.pipeline_folder import inspect_folder, weight_files

PIXELS: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}
STAGE: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "latent_channels": 3,
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def unet(**changes: Any) -> Any:
    torch.manual_seed(0)
    return UNet2DModel(**(PIXELS | changes)).eval().requires_grad_(False)


@pytest.fixture
def pixel_folder(tmp_path: Path) -> Path:
    """As google/ddpm-cifar10-32 lies on the hub: everything in one folder."""
    unet().save_pretrained(tmp_path / "model")
    DDPMScheduler().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def text_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = original("stable-diffusion")
    folder = tmp_path_factory.mktemp("text")
    checkpoint = model.write(folder.parent / "text.ckpt", ema=False)
    convert(checkpoint, model.family, folder)
    return folder


@pytest.fixture
def text_folder(text_original: Path, tmp_path: Path) -> Path:
    """A pipeline with text, to spoil."""
    return Path(shutil.copytree(text_original, tmp_path / "text"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(call: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(DataError) as error:
        call(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def same_output(loaded: Any, expected: Any) -> bool:
    x = torch.randn(2, expected.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    return torch.equal(loaded(x, 7).sample, expected(x, 7).sample)


def test_a_bare_unet_of_pixels(pixel_folder: Path) -> None:
    folder = inspect_folder(pixel_folder)
    assert folder.latent_shape == folder.image_shape == (1, 16, 16)
    assert folder.schedule is not None
    assert folder.sampler == {"name": "ddim", "spacing": "uniform", "steps_offset": 0, "final_alpha": "one"}
    assert folder.digests().keys() == {"config.json", WEIGHTS}
    loaded = load_pipeline_folder(pixel_folder)
    assert same_output(loaded.denoiser, unet())
    assert isinstance(loaded.codec, Identity)
    assert loaded.conditioning is None


def test_a_pipeline_of_latent_diffusion(tmp_path: Path) -> None:
    torch.manual_seed(1)
    stage = VQModel(**STAGE, num_vq_embeddings=16, scaling_factor=0.5)
    denoiser = unet(in_channels=3, out_channels=3)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195)
    LDMPipeline(vqvae=stage, unet=denoiser, scheduler=scheduler).save_pretrained(tmp_path)
    folder = inspect_folder(tmp_path)
    assert folder.latent_shape == (3, 16, 16)
    assert folder.image_shape == (1, 32, 32)
    assert folder.schedule is not None
    assert folder.schedule.model_dump() == {
        "train_steps": 1000,
        "beta_start": 0.0015,
        "beta_end": 0.0195,
        "betas": "scaled_linear",
    }
    loaded = load_pipeline_folder(tmp_path)
    assert same_output(loaded.denoiser, denoiser)
    assert isinstance(loaded.codec, DiffusersFirstStage)
    latents = torch.randn(3, 3, 16, 16)
    assert torch.allclose(loaded.codec.decode(latents), stage.eval().decode(latents / 0.5).sample, atol=1e-6)


@pytest.mark.parametrize("kind", ["bin", "shards", "old-names", "half"])
def test_other_ways_to_lie_there(kind: str, pixel_folder: Path) -> None:
    expected = unet()
    tensors = load_file(pixel_folder / WEIGHTS)
    (pixel_folder / WEIGHTS).unlink()
    if kind == "bin":
        torch.save(tensors, pixel_folder / "diffusion_pytorch_model.bin")
    elif kind == "shards":
        expected.save_pretrained(pixel_folder, max_shard_size="20KB")
    elif kind == "half":
        save_file({name: tensor.half() for name, tensor in tensors.items()}, pixel_folder / WEIGHTS)
        expected = expected.half().float()
    else:  # as published folders of DDPM name the parts of attention
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for new_name, old_name in old.items():
            tensors = {name.replace(f".{new_name}.", f".{old_name}."): tensor for name, tensor in tensors.items()}
        save_file(tensors, pixel_folder / WEIGHTS, metadata={"format": "pt"})
    files = weight_files(inspect_folder(pixel_folder).denoiser)
    assert (len(files) > 2) == (kind == "shards")
    assert set(inspect_folder(pixel_folder).digests()) == {"config.json", *(each.name for each in files)}
    denoiser = load_pipeline_folder(pixel_folder).denoiser
    assert all(parameter.dtype == torch.float32 for parameter in denoiser.parameters())
    assert same_output(denoiser, expected)


def test_what_decides_the_digests(text_folder: Path) -> None:
    before = inspect_folder(text_folder).digests()
    assert before.keys() == {
        *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
        f"unet/{WEIGHTS}",
        f"vae/{WEIGHTS}",
        "text_encoder/model.safetensors",
        *(f"tokenizer/{name}" for name in ("merges.txt", "tokenizer_config.json", "vocab.json")),
        "qbench.json",
    }
    edit(text_folder / "vae" / "config.json", scaling_factor=0.2)
    (text_folder / "README.md").write_text("changed")
    after = inspect_folder(text_folder).digests()
    assert {name for name in before if before[name] != after[name]} == {"vae/config.json"}


def test_the_shapes_of_a_pipeline_with_text(text_folder: Path) -> None:
    folder = inspect_folder(text_folder)
    assert folder.latent_shape == (4, 16, 16)
    assert folder.image_shape == (3, 128, 128)
    assert folder.sampler == {"name": "plms", "spacing": "uniform", "steps_offset": 1, "final_alpha": "first"}


def test_nothing_is_drawn_on_the_terminal(text_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_pipeline_folder(text_folder)
    assert capfd.readouterr() == ("", "")


def test_a_long_tokenizer_is_cut_to_the_text_model(text_folder: Path) -> None:
    edit(text_folder / "tokenizer" / "tokenizer_config.json", model_max_length=10**30)
    conditioning = load_pipeline_folder(text_folder).conditioning
    assert conditioning is not None
    states = conditioning(["dog " * 10_000, "\x00\x1b[31mred\u202e"])["encoder_hidden_states"]
    assert states.shape == (2, 77, 16)
    assert states.isfinite().all()


def test_every_caption_is_by_itself(text_folder: Path) -> None:
    conditioning = load_pipeline_folder(text_folder).conditioning
    assert conditioning is not None
    captions = [f"{number} cats" for number in range(70)]
    together = conditioning(captions)["encoder_hidden_states"]
    alone = conditioning(captions[66:67])["encoder_hidden_states"]
    assert torch.allclose(together[66:67], alone, atol=1e-5)


def test_missing_folders_and_configurations(pixel_folder: Path, tmp_path: Path) -> None:
    assert "does not exist" in refusal(inspect_folder, tmp_path / "nowhere")
    (pixel_folder / "config.json").unlink()
    assert "is no folder of diffusers: it holds no config.json" in refusal(inspect_folder, pixel_folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "holds no JSON object"),
        ('{"_class_name": "DiTTransformer2DModel"}', "describes a DiTTransformer2DModel; known are UNet2DModel, "),
        ("{}", "describes a nameless class; known are"),
        ('{"_class_name": "UNet2DModel"}', "has the sample_size None, which is no height and width"),
        ('{"_class_name": "UNet2DModel", "sample_size": 8, "out_channels": 6}', "a denoiser from 3 to 6 channels"),
        ('{"_class_name": "UNet2DConditionModel", "sample_size": 8}', "and no text_encoder that it needs"),
    ],
)
def test_configurations_that_are_none(content: str, complaint: str, pixel_folder: Path) -> None:
    (pixel_folder / "config.json").write_text(content)
    assert complaint in refusal(inspect_folder, pixel_folder)


def spoiled(folder: Path, how: str) -> None:
    unet_config, vae_config = folder / "unet" / "config.json", folder / "vae" / "config.json"
    if how == "two-stages":
        shutil.copytree(folder / "vae", folder / "vqvae")
    elif how == "sdxl":
        shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    elif how == "no-tokenizer":
        shutil.rmtree(folder / "tokenizer")
    elif how == "other-latents":
        edit(vae_config, latent_channels=8)
    elif how == "unread-text":
        edit(unet_config, _class_name="UNet2DModel")
    elif how == "other-text":
        edit(folder / "text_encoder" / "config.json", architectures=["T5EncoderModel"])


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("two-stages", "holds both vae and vqvae"),
        ("sdxl", "the part 'text_encoder_2', which no workload of qbench loads"),
        ("no-tokenizer", "has a text_encoder but no tokenizer"),
        ("other-latents", "describes latents of 8 channels, but the denoiser works on 4"),
        ("unread-text", "has a UNet2DModel and a text_encoder that it does not read"),
        ("other-text", "describes a T5EncoderModel; known are CLIPTextModel"),
    ],
)
def test_pipelines_that_do_not_fit_together(how: str, complaint: str, text_folder: Path) -> None:
    spoiled(text_folder, how)
    assert complaint in refusal(inspect_folder, text_folder)


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "pickle", "missing-key", "another-key", "shape", "none", "fp16"]
)
def test_weights_that_are_not_the_configurations(kind: str, pixel_folder: Path) -> None:
    path = pixel_folder / WEIGHTS
    tensors = load_file(path)
    if kind in ("truncated", "empty"):
        path.write_bytes(path.read_bytes()[: 5000 if kind == "truncated" else 0])
        complaint = "its weights are damaged or do not fit its config.json"
    elif kind == "pickle":
        path.unlink()
        (pixel_folder / "diffusion_pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
        complaint = "its weights are damaged or do not fit its config.json"
    elif kind == "missing-key":
        save_file({name: each for name, each in tensors.items() if name != "conv_in.bias"}, path)
        complaint = "missing keys conv_in.bias"
    elif kind == "another-key":
        save_file(tensors | {"extra.weight": torch.zeros(2)}, path)
        complaint = "unexpected keys extra.weight"
    elif kind == "shape":
        save_file(tensors | {"conv_in.bias": torch.zeros(3)}, path)
        complaint = "conv_in.bias"
    elif kind == "none":
        path.unlink()
        complaint = "holds no weights"
    else:
        path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
        complaint = "(variants such as fp16 are not read)"
    assert complaint in refusal(load_pipeline_folder, pixel_folder)


def test_a_lost_shard(pixel_folder: Path) -> None:
    (pixel_folder / WEIGHTS).unlink()
    unet().save_pretrained(pixel_folder, max_shard_size="20KB")
    lost = weight_files(inspect_folder(pixel_folder).denoiser)[1]
    lost.unlink()
    assert f"lacks {lost.name}, which its index of weights names" in refusal(load_pipeline_folder, pixel_folder)


def test_a_damaged_tokenizer_and_too_many_words(text_folder: Path) -> None:
    (text_folder / "tokenizer" / "vocab.json").write_text("{")
    assert "holds no tokenizer of CLIP that can be read" in refusal(load_pipeline_folder, text_folder)


def test_a_damaged_text_encoder(text_folder: Path) -> None:
    path = text_folder / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "the CLIPTextModel in" in refusal(load_pipeline_folder, text_folder)


def test_a_kl_stage_with_grey_images_and_a_shift(tmp_path: Path) -> None:
    torch.manual_seed(2)
    stage = AutoencoderKL(**STAGE, scaling_factor=1.7, shift_factor=0.3).eval()
    stage.save_pretrained(tmp_path / "vae")
    unet(in_channels=3, out_channels=3).save_pretrained(tmp_path / "unet")
    folder = inspect_folder(tmp_path)
    assert folder.image_shape == (1, 32, 32)
    assert folder.schedule is None
    assert folder.sampler == {}
    codec = load_pipeline_folder(tmp_path).codec
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        mode = stage.encode(images).latent_dist.mode()
        assert torch.equal(codec.encode(images), (mode - 0.3) * 1.7)
        assert torch.allclose(codec.decode((mode - 0.3) * 1.7), stage.decode(mode).sample, atol=1e-5)


def test_looking_at_a_folder_takes_no_torch(pixel_folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from qbench.workloads.pipeline_folder import inspect_folder\n"
        "import qbench.workloads.configurations\n"
        f"folder = inspect_folder(Path({str(pixel_folder)!r}))\n"
        "print(folder.latent_shape, len(folder.digests()), folder.schedule.betas, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 16, 16) 2 linear False\n"
