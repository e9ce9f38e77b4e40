"""Pipeline folders in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from qbench.diffusion.codecs import Codec, DiffusersFirstStage, Identity
from qbench.errors import DataError
from qbench.workloads.pipeline_folder import Part, inspect_folder, weight_files
from qbench.workloads.text_conditioning import CLIPConditioning

SHOWN = 3
"""So many differing tensors a message names."""


@dataclass(frozen=True)
class LoadedPipeline:
    """The parts of a pipeline folder, on the CPU, in float32 and evaluation mode, without gradients.

    Attributes:
        denoiser: UNet2DModel or UNet2DConditionModel.
        codec: between images and latents.
        conditioning: from captions to what the denoiser attends to; None where it is not conditioned on text.
    """

    denoiser: nn.Module
    codec: Codec
    conditioning: CLIPConditioning | None


def load_pipeline_folder(path: Path) -> LoadedPipeline:
    """Load a pipeline folder, or the folder of a single UNet.

    Args:
        path: see ``inspect_folder``.

    Raises:
        DataError: a part is missing, damaged, or not what its configuration says.
    """
    folder = inspect_folder(path)
    denoiser = load_network(folder.denoiser)
    if folder.heads is not None:
        set_heads(denoiser, folder.heads)
    codec: Codec = Identity()
    if folder.first_stage is not None:
        codec = DiffusersFirstStage(load_network(folder.first_stage))
    conditioning = None
    if folder.text_encoder is not None:
        conditioning = load_conditioning(folder.text_encoder, folder.tokenizer)
    return LoadedPipeline(denoiser, codec, conditioning)


def set_heads(unet: nn.Module, heads: int | Mapping[str, int]) -> None:
    """Give attentions of a denoiser another number of heads than their configuration says.

    Args:
        unet: the denoiser.
        heads: of every attention, whatever its width; or of some by their names.

    Raises:
        DataError: the heads do not divide a width.
    """
    from diffusers.models.attention_processor import Attention

    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            wanted = heads if isinstance(heads, int) else heads.get(name, module.heads)
            if wanted == module.heads:
                continue
            if module.inner_dim % wanted:
                raise DataError(
                    f"{name} of the denoiser is {module.inner_dim} wide, which {wanted} heads do not divide"
                )
            module.heads = wanted
            module.scale = (module.inner_dim // wanted) ** -0.5


def load_network(part: Part) -> nn.Module:
    """Load a network of diffusers, on the CPU, in float32 and evaluation mode, without gradients.

    Raises:
        DataError: its weights are missing, damaged, or not what its configuration says.
    """
    import diffusers

    return _load(part, getattr(diffusers, part.class_name), low_cpu_mem_usage=False)


def load_conditioning(text_encoder: Part, tokenizer_folder: Path) -> CLIPConditioning:
    """Load a text model of CLIP and its tokenizer.

    Args:
        text_encoder: the text model.
        tokenizer_folder: with the tokenizer's files.

    Raises:
        DataError: one of them is missing, damaged, or does not fit the other.
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    with _without_progress_bar():
        model: Any = _load(text_encoder, CLIPTextModel)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    # What a damaged vocabulary raises depends on where the tokenizer stumbles over it.
    except Exception as error:
        raise DataError(f"{tokenizer_folder} holds no tokenizer of CLIP that can be read") from error
    longest = model.config.max_position_embeddings
    if tokenizer.model_max_length > longest:
        tokenizer.model_max_length = longest
    if len(tokenizer) > model.config.vocab_size:
        raise DataError(
            f"{tokenizer_folder} has {len(tokenizer)} words, but the text model knows {model.config.vocab_size}"
        )
    return CLIPConditioning(tokenizer, model)


def _load(part: Part, network_class: Any, **options: Any) -> nn.Module:

    files = weight_files(part)
    try:
        network, report = network_class.from_pretrained(
            part.folder,
            use_safetensors=".safetensors" in files[0].name,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    # The libraries raise whatever their parsers do, with advice for another use of theirs.
    except Exception as error:
        raise DataError(
            f"the {part.class_name} in {part.folder} cannot be loaded: its weights are damaged or do not fit its "
            f"config.json ({type(error).__name__}: {_one_line(error)})"
        ) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(str(key) for key in report[kind]):
            shown = ", ".join(keys[:SHOWN])
            raise DataError(
                f"the weights in {part.folder} are not those of the {part.class_name} that its config.json describes: "
                f"{kind.replace('_', ' ')} {shown}{' and more' if len(keys) > SHOWN else ''}"
            )
    loaded: nn.Module = network.float().eval().requires_grad_(False)
    return loaded


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing on the terminal."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
