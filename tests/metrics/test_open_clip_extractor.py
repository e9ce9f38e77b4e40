import json
import shutil
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from qbench.errors import DataError
from qbench.metrics.open_clip_extractor import OLD_NAME, OPENAI, SAFE_NAME, OpenCLIP, OpenCLIPSettings
from qbench.plugins import Entry
from qbench.workloads.assets import Address, Home, HubFolder

MODEL = "tiny-clip-of-a-test"
CAPTIONS = ["a cat", "", "two dogs and a very long story about what they did on the day before yesterday"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that open_clip knows, with random weights in a file."""
    folder = tmp_path_factory.mktemp("open-clip")
    towers = {
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{MODEL}.json").write_text(json.dumps({"embed_dim": 16, **towers}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
        patch.setattr("open_clip.factory._MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS})
        open_clip.add_model_config(folder / f"{MODEL}.json")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_file(open_clip.create_model(MODEL).state_dict(), folder / "weights.safetensors")
        yield folder / "weights.safetensors"


@pytest.fixture
def some_tag(weights: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tag whose weights were trained with another activation and another preprocessing than a file's would be."""
    told = {"quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "resize_mode": "squash"}
    source = {"file": str(weights), "url": "https://example.org/w.pt", "interpolation": "bicubic", **told}
    monkeypatch.setitem(_PRETRAINED, MODEL, {"some_tag": source})
    return "some_tag"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's cache, empty; whoever touches the network fails."""

    def connect(*_: Any) -> None:
        raise AssertionError("it used the network")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def extractor(**settings: Any) -> OpenCLIP:
    return OpenCLIP(Entry("open-clip", "qbench", "0", "here:there"), OpenCLIPSettings(**settings))


def features(captions: list[str] | None, images: np.ndarray, **settings: Any) -> Mapping[str, Tensor]:
    extract = extractor(model=MODEL, captions=captions is not None, **settings).load(CPU)
    return extract(torch.from_numpy(images), captions)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)


def by_hand(images: np.ndarray, pretrained: str, **options: Any) -> tuple[Tensor, Tensor]:
    network, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=pretrained, **options)
    pictures = [Image.fromarray(np.moveaxis(np.broadcast_to(each, (3, *each.shape[1:])), 0, -1)) for each in images]
    with torch.no_grad():
        image = network.encode_image(torch.stack([preprocess(each) for each in pictures]))
        text = network.encode_text(open_clip.get_tokenizer(MODEL)(CAPTIONS))
    return normalize(image), normalize(text)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 50, 41), (1, 16, 24)])
def test_features_are_those_of_open_clip(weights: Path, shape: tuple[int, ...]) -> None:
    found = features(CAPTIONS, noise(*shape), pretrained=str(weights))
    image, text = by_hand(noise(*shape), str(weights))
    assert list(found) == ["image", "text", "cosine"]
    torch.testing.assert_close(found["image"], image)
    torch.testing.assert_close(found["text"], text)
    assert found["cosine"].shape == (3, 1)
    torch.testing.assert_close(found["cosine"][:, 0], torch.cosine_similarity(image, text))
    assert not torch.allclose(image, image[:1])


def test_each_image_and_caption_is_looked_at_by_itself(weights: Path) -> None:
    images = noise(3, 40, 40)
    together = features(CAPTIONS, images, pretrained=str(weights))
    for index, caption in enumerate(CAPTIONS):
        alone = features([caption], images[index : index + 1], pretrained=str(weights))
        for name, values in together.items():
            torch.testing.assert_close(alone[name][0], values[index])


def test_captions_are_looked_at_only_if_asked_for(weights: Path) -> None:
    plain, captioned = extractor(), extractor(captions=True)
    assert (plain.features, plain.needs_captions) == (("image",), False)
    assert (captioned.features, captioned.needs_captions) == (("image", "text", "cosine"), True)
    images = noise(3, 32, 32)
    assert list(features(None, images, pretrained=str(weights))) == ["image"]
    extract = extractor(model=MODEL, pretrained=str(weights), captions=True).load(CPU)
    with pytest.raises(TypeError, match="open-clip needs a caption for each image"):
        extract(torch.from_numpy(images), None)


def test_a_tag_brings_its_activation_and_preprocessing(weights: Path, some_tag: str) -> None:
    """Asked for the weights of this tag, open_clip itself only warns that its activation does not fit the model's."""
    images = noise(3, 40, 60)
    found = features(CAPTIONS, images, pretrained=some_tag)
    image, text = by_hand(images, some_tag, force_quick_gelu=True)
    torch.testing.assert_close(found["image"], image)
    torch.testing.assert_close(found["text"], text)
    with pytest.warns(UserWarning, match="QuickGELU mismatch"):
        wrong, _ = by_hand(images, some_tag)
    assert (found["image"] - wrong).abs().max() > 1e-4


def test_a_file_is_identified_by_its_digest(weights: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(weights, tmp_path / "copy.safetensors"))
    first, second = (extractor(model=MODEL, pretrained=str(path)).describe() for path in (weights, copy))
    assert first == second
    assert first["weights"] == {MODEL: sha256(weights.read_bytes()).hexdigest()}
    assert str(tmp_path) not in json.dumps(second)
    assert second["settings"] == {"model": MODEL, "pretrained": "a file", "captions": False}
    copy.write_bytes(weights.read_bytes() + b"\0")
    assert extractor(model=MODEL, pretrained=str(copy)).describe() != first


def test_a_tag_is_identified_by_its_name_and_its_digest(weights: Path, some_tag: str) -> None:
    found = extractor(model=MODEL, pretrained=some_tag).describe()
    assert found["settings"]["pretrained"] == some_tag
    assert found["weights"] == {MODEL: sha256(weights.read_bytes()).hexdigest()}


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_what_is_in_the_cache_is_found(weights: Path, hub: Path, name: str) -> None:
    repository = hub / "models--timm--vit_base_patch32_clip_224.openai"
    for place in (repository / "refs", repository / "snapshots" / "abc"):
        place.mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    shutil.copy(weights, repository / "snapshots" / "abc" / name)
    assert extractor().weights() == {"ViT-B-32": sha256(weights.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"hf_hub": "org/repo/"}, HubFolder("org/repo", "main", (f"{SAFE_NAME}|{OLD_NAME}",))),
        ({"hf_hub": "org/repo/a.pth"}, HubFolder("org/repo", "main", ("a.safetensors|a.pth",))),
        ({"hf_hub": "org/repo/a.safetensors", "url": "x"}, HubFolder("org/repo", "main", ("a.safetensors",))),
        ({"url": f"https://openaipublic.azureedge.net/clip/models/{'ab' * 32}/ViT.pt"}, "ab" * 32),
        ({"url": "https://github.com/mlfoundations/open_clip/releases/v0/vit-laion400m-46683a32.pt"}, "46683a32"),
        ({"url": "https://example.org/vit.pt"}, None),
    ],
)
def test_weights_come_from_where_open_clip_gets_them(
    weights: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, str], expected: HubFolder | str | None
) -> None:
    """Digests of addresses are those that open_clip reads out of them, see its download_pretrained_from_url."""
    monkeypatch.setitem(_PRETRAINED, MODEL, {"some_tag": source})
    (asset,) = extractor(model=MODEL, pretrained="some_tag").assets()
    if not isinstance(expected, HubFolder):
        expected = Address(source["url"], digest=expected, home=Home.CLIP)
    assert asset.source == expected


@pytest.mark.parametrize("suffix", ["", "-quickgelu"])
@pytest.mark.parametrize("model", OPENAI)
def test_what_is_known_of_openai_is_what_open_clip_knows(model: str, suffix: str) -> None:
    repository, size = OPENAI[model]
    assert open_clip.get_pretrained_cfg(model + suffix, "openai")["hf_hub"] == repository
    with torch.device("meta"):
        network = open_clip.CLIP(**open_clip.get_model_config(model))
    parameters = sum(each.numel() for each in network.parameters())
    assert size == pytest.approx(4 * parameters, rel=2e-3)


def test_files_are_called_as_open_clip_calls_them() -> None:
    assert (SAFE_NAME, OLD_NAME) == (open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME)


def test_what_is_known_of_sizes_is_told(hub: Path) -> None:
    models = {"ViT-B-32": 605_000_000, "ViT-B-32-quickgelu": 605_000_000, "RN50": None}
    assert {model: each.size for model in models for each in extractor(model=model).assets()} == models


def test_a_file_of_ones_own_is_nobodys_to_fetch(weights: Path, some_tag: str) -> None:
    assert extractor(model=MODEL, pretrained=str(weights)).assets() == ()
    assert extractor(model=MODEL, pretrained=some_tag).assets() == ()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "ViT-B/32"}, "has no model 'ViT-B/32': did you mean 'ViT-B-32'?"),
        ({"model": "hf-hub:some/one"}, "has no model 'hf-hub:some/one': known are .*ViT-B-32"),
        ({"pretrained": "opena"}, "has no weights 'opena' of ViT-B-32: did you mean 'openai'?"),
        ({"model": "ViT-L-14-336", "pretrained": "x"}, "has no weights 'x' of ViT-L-14-336: known are openai"),
        ({"pretrained": ""}, "'pretrained' is empty, and a network of random weights says nothing: of ViT-B-32, known"),
        ({"pretrained": "no/such.pt"}, "the weight file no/such.pt does not exist"),
        (
            {"pretrained": "openai"},
            "open_clip's ViT-B-32 with weights 'openai': timm/vit_base_patch32_clip_224.openai is not in Hugging "
            "Face's cache, or not all of it .*; `qbench fetch SUITE`, or `qbench fetch --metrics ID` without a suite, "
            "gets it from timm/vit_base_patch32_clip_224.openai on Hugging Face's hub .605.0 MB.; or give the path",
        ),
    ],
)
@pytest.mark.parametrize("ask", [OpenCLIP.weights, OpenCLIP.describe, lambda asked: asked.load(CPU)])
def test_weights_that_are_not_there(settings: dict[str, str], message: str, ask: Any) -> None:
    with pytest.raises(DataError, match=f"^the extractor 'open-clip': .*{message}"):
        ask(extractor(**settings))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", None])
def test_a_damaged_file(weights: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    broken = tmp_path / name
    broken.write_bytes(weights.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(DataError, match=f"{MODEL} cannot be made with the weights in .*{name}"):
        extractor(model=MODEL, pretrained=str(broken)).load(CPU)


def test_weights_of_another_model(weights: Path, tmp_path: Path) -> None:
    save_file({"some": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=f"{MODEL} cannot be made with the weights in .*other.safetensors"):
        extractor(model=MODEL, pretrained=str(tmp_path / "other.safetensors")).load(CPU)
