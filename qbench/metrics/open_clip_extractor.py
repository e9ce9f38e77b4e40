"""The extractor ``open-clip``: image and text embeddings of any model that open_clip knows.

Source: Radford et al. 2021, arXiv 2103.00020, through the package open_clip_torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_serializer

from qbench.errors import DataError, did_you_mean
from qbench.metrics.extractor import Extractor
from qbench.plugins import Entry
from qbench.settings import Settings
from qbench.workloads.assets import FETCH_FOR_METRICS, Address, Asset, Home, HubFolder
from qbench.workloads.file_digests import remembered_digest

if TYPE_CHECKING:
    import torch
    from numpy import uint8
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from qbench.metrics.extractor import Extract

OPENAI = {
    "ViT-B-16": ("timm/vit_base_patch16_clip_224.openai/", 599_000_000),
    "ViT-B-32": ("timm/vit_base_patch32_clip_224.openai/", 605_000_000),
    "ViT-L-14": ("timm/vit_large_patch14_clip_224.openai/", 1_710_000_000),
    "ViT-L-14-336": ("timm/vit_large_patch14_clip_336.openai/", 1_712_000_000),
}
"""Where open_clip has OpenAI's weights from, and about what they take: importing open_clip to ask takes seconds."""

SAFE_NAME, OLD_NAME = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
"""What open_clip calls weights in a repository that is named without a file."""


class OpenCLIPWeights(Settings):
    """Which network, with which weights."""

    model: Annotated[str, Field(description="name of the model in open_clip")] = "ViT-B-32"
    pretrained: Annotated[
        str,
        Field(
            description="its weights: a tag of open_clip, or the path of a weight file (what has a '.' or a '/' in it; "
            "weights that OpenAI trained then need the model of a name with '-quickgelu')"
        ),
    ] = "openai"

    @property
    def path(self) -> Path | None:
        """The weight file that was named; None if a tag was."""
        return Path(self.pretrained).expanduser() if set(self.pretrained) & set("./\\") else None

    @property
    def weights_title(self) -> str:
        """The tag, or that there is a file; where it lies is nobody's business."""
        return f"weights {self.pretrained!r}" if self.path is None else "weights from a file"

    @field_serializer("pretrained", when_used="json")
    def _without_path(self, pretrained: str) -> str:
        """Keep a path out of descriptions: the digest of the file is in them."""
        return pretrained if self.path is None else "a file"


class OpenCLIPSettings(OpenCLIPWeights):
    """Settings of the extractor."""

    captions: Annotated[bool, Field(description="whether captions are looked at as well")] = False


class OpenCLIP(Extractor):
    """Embeddings of images, and of their captions if those are asked for, each divided by its length.

    Features are ``image`` [batch, D]; with captions also ``text`` [batch, D] and ``cosine`` [batch, 1], that of an
    image and its caption. Images go through the model's own preprocessing as 8-bit RGB pictures; a caption that is
    longer than the model's context is cut. The weights of a tag are used with the activation and the preprocessing
    that they were trained with, those of a file with the model's activation and OpenAI's preprocessing.
    """

    title = "image and text embeddings of an open_clip model"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    settings_class = OpenCLIPSettings
    settings: OpenCLIPSettings

    def __init__(self, entry: Entry, settings: Settings) -> None:
        super().__init__(entry, settings)
        self.needs_captions = self.settings.captions
        self.features = ("image", "text", "cosine") if self.settings.captions else ("image",)

    def assets(self) -> Sequence[Asset]:
        """Return the weights of the tag; none if a file was named.

        Raises:
            DataError: unknown model or tag, or no weights asked for.
        """
        model, tag = self.settings.model, self.settings.pretrained
        title = f"open_clip's {model} with weights {tag!r}"
        known = OPENAI.get(model.removesuffix("-quickgelu")) if tag == "openai" else None
        if known is not None:
            repository, size = known
            return (Asset(title, _published({"hf_hub": repository}), size),)
        self._check()
        if not self._source or "file" in self._source:
            return ()
        return (Asset(title, _published(self._source)),)

    def weights(self) -> Mapping[str, str]:
        """Return the digest of the weight file by the model's name.

        Raises:
            DataError: as for ``assets``, or a file that is missing.
        """
        return {self.settings.model: self._digest}

    @cached_property
    def _digest(self) -> str:
        return remembered_digest(self._file)

    @cached_property
    def _file(self) -> Path:
        for asset in self.assets():
            try:
                found = asset.require(FETCH_FOR_METRICS)
            except DataError as error:
                raise self._error(f"{error}; or give the path of a weight file as 'pretrained'") from error
            if isinstance(asset.source, HubFolder):
                names = asset.source.patterns[0].split("|")
                return next(found / name for name in names if (found / name).is_file())
            return found
        return self.settings.path or Path(self._source["file"])

    def _check(self) -> None:
        """Refuse what open_clip does not know, and files that do not exist."""
        import open_clip

        model, tag, path = self.settings.model, self.settings.pretrained, self.settings.path
        if model not in open_clip.list_models():
            raise self._error(f"open_clip has no model {model!r}: {did_you_mean(model, open_clip.list_models())}")
        tags = open_clip.list_pretrained_tags_by_model(model)
        if not tag:
            raise self._error(
                f"'pretrained' is empty, and a network of random weights says nothing: of {model}, "
                f"{did_you_mean(tag, tags)}"
            )
        if path is not None and not path.is_file():
            raise self._error(f"the weight file {path} does not exist")
        if path is None and not open_clip.is_pretrained_cfg(model, tag):
            raise self._error(f"open_clip has no weights {tag!r} of {model}: {did_you_mean(tag, tags)}")

    @cached_property
    def _source(self) -> Mapping[str, Any]:
        """What open_clip knows of the tag: where its weights are, and how they were trained; nothing of a file."""
        import open_clip

        found: Mapping[str, Any] = open_clip.get_pretrained_cfg(self.settings.model, self.settings.pretrained)
        return {} if self.settings.path else found

    def load(self, device: torch.device) -> Extract:
        """Return the feature function.

        Raises:
            DataError: as for ``weights``, or the file is damaged or of another model.
        """
        import torch

        network, preprocess, tokenize = self._load()
        network = network.to(device).eval().requires_grad_(False)

        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            pictures = [preprocess(_picture(image)) for image in images.cpu().numpy()]
            image = network.encode_image(torch.stack(pictures).to(device), normalize=True)
            if not self.needs_captions:
                return {"image": image}
            if captions is None:
                raise TypeError(f"{self.name} needs a caption for each image")
            text = network.encode_text(tokenize(list(captions)).to(device), normalize=True)
            return {"image": image, "text": text, "cosine": (image * text).sum(dim=1, keepdim=True)}

        return extract

    def _load(self) -> tuple[Any, Any, Any]:
        """Return network, preprocessing and tokenizer as open_clip makes them."""
        import open_clip

        model, file, source = self.settings.model, self._file, self._source
        try:
            network, preprocess = open_clip.create_model_from_pretrained(
                model,
                str(file),
                # Given a tag, open_clip only warns where its weights were trained with another activation than the
                # model of this name has, as OpenAI's were, and goes on with the wrong one.
                force_quick_gelu=source.get("quick_gelu", False),
                image_mean=source.get("mean"),
                image_std=source.get("std"),
                image_interpolation=source.get("interpolation"),
                image_resize_mode=source.get("resize_mode"),
            )
            return network, preprocess, open_clip.get_tokenizer(model) if self.needs_captions else None
        except Exception as error:  # whatever torch, safetensors, timm and transformers raise for a file they dislike
            raise self._error(f"{model} cannot be made with the weights in {file} ({_told(error)})") from error

    def _error(self, what: str) -> DataError:
        return DataError(f"the extractor {self.name!r}: {what}")


def _published(source: Mapping[str, Any]) -> HubFolder | Address:
    """Return where open_clip itself would get the weights from: the hub, if they are there."""
    repository, _, _ = source.get("hf_hub", "").rpartition("/")
    if repository:
        return HubFolder(repository, "main", ("|".join(_hub_names(source["hf_hub"].rpartition("/")[2])),))
    url = source["url"]
    digest = None
    if "openaipublic" in url:  # the folder is named by the SHA-256
        digest = url.split("/")[-2]
    elif "mlfoundations" in url:  # the first digits are the end of the name
        digest = url.rpartition("/")[2].rpartition(".")[0].rpartition("-")[2]
    return Address(url, digest=digest, home=Home.CLIP)


def _hub_names(name: str) -> Sequence[str]:
    """Return what the weights may be called in their repository, safetensors first, from the name in open_clip."""
    if name in ("", OLD_NAME):
        return SAFE_NAME, OLD_NAME
    return (f"{name[:-4]}.safetensors", name) if name.endswith((".bin", ".pth")) else (name,)


def _picture(image: NDArray[uint8]) -> Image:
    from PIL import Image

    channels, height, width = image.shape
    grey_or_colour = image if channels == 3 else image.repeat(3, axis=0)
    return Image.frombytes("RGB", (width, height), grey_or_colour.transpose(1, 2, 0).tobytes())


def _told(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:197]}..."
