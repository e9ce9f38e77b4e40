"""The extractor ``open-clip``: image and text embeddings of any model that open_clip knows.

Source: Radford et al. 2021, arXiv 2103.00020, through the package open_clip_torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_serializer

from qbench.errors import DataError, did_you_mean
from qbench.identity import file_digest
from qbench.metrics.extractor import Extractor
from qbench.plugins import Entry
from qbench.settings import Settings

if TYPE_CHECKING:
    import torch
    from numpy import uint8
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from qbench.metrics.extractor import Extract

REACH_SECONDS = 5.0
"""How long Hugging Face's server may take to answer at all."""


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

    def weights(self) -> Mapping[str, str]:
        """Return the digest of the weight file by the model's name; fetches the file if it is not in a cache.

        Raises:
            DataError: unknown model or tag, no weights asked for, or a file that is missing and cannot be fetched.
        """
        return {self.settings.model: self._digest}

    @cached_property
    def _digest(self) -> str:
        return file_digest(self._file)

    @cached_property
    def _file(self) -> Path:
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
        if path is not None:
            if not path.is_file():
                raise self._error(f"the weight file {path} does not exist")
            return path
        if not open_clip.is_pretrained_cfg(model, tag):
            raise self._error(f"open_clip has no weights {tag!r} of {model}: {did_you_mean(tag, tags)}")
        return _cached(self._source) or self._fetched()

    @cached_property
    def _source(self) -> Mapping[str, Any]:
        """What open_clip knows of the tag: where its weights are, and how they were trained; nothing of a file."""
        import open_clip

        found: Mapping[str, Any] = open_clip.get_pretrained_cfg(self.settings.model, self.settings.pretrained)
        return {} if self.settings.path else found

    def _fetched(self) -> Path:
        import open_clip

        repository = self._source.get("hf_hub", "").rpartition("/")[0]
        try:
            if repository:
                _reach_hugging_face()
            with _quiet_hugging_face():
                return Path(open_clip.download_pretrained(self._source))
        except Exception as error:  # of urllib, of huggingface_hub, and RuntimeError for a wrong digest
            place = f"{repository} in Hugging Face's cache" if repository else f"{self._source['url']} in ~/.cache/clip"
            raise self._error(
                f"the weights {self.settings.pretrained!r} of {self.settings.model} are not at hand and cannot be "
                f"fetched ({_first_line(error)}): have {place}, or give the path of a weight file as 'pretrained'"
            ) from error

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


def _cached(source: Mapping[str, Any]) -> Path | None:
    """Return the weights of a tag if Hugging Face's cache has them; offline, asking its server first takes a minute."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, named = source.get("hf_hub", "").rpartition("/")
    for name in (named,) if named else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
        found = try_to_load_from_cache(repository, name) if repository else None
        if isinstance(found, str):
            return Path(found)
    return None


def _reach_hugging_face() -> None:
    """Raise an error if its server cannot be reached: huggingface_hub tries again for most of a minute.

    Raises:
        ConnectionError: it cannot, or must not because of HF_HUB_OFFLINE.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE forbids it")
    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS)
    except Exception as error:  # of whichever client huggingface_hub uses
        raise ConnectionError(f"{constants.ENDPOINT} cannot be reached") from error


@contextmanager
def _quiet_hugging_face() -> Iterator[None]:
    """Keep what huggingface_hub logs of its attempts to itself: what became of them is told once, as an error."""
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    before = get_verbosity()
    set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        set_verbosity(before)


def _picture(image: NDArray[uint8]) -> Image:
    from PIL import Image

    channels, height, width = image.shape
    grey_or_colour = image if channels == 3 else image.repeat(3, axis=0)
    return Image.frombytes("RGB", (width, height), grey_or_colour.transpose(1, 2, 0).tobytes())


def _first_line(error: Exception) -> str:
    """Return what happened without the advice that huggingface_hub adds in further lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip()


def _told(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:197]}..."
