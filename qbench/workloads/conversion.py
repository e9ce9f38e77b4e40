"""Original checkpoints of CompVis as folders of diffusers."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qbench.errors import DataError
from qbench.workloads.checkpoint_file import averaged, read_checkpoint
from qbench.workloads.clip_tokenizer import write_clip_tokenizer
from qbench.workloads.compvis_names import (
    FIRST_STAGE_PREFIX,
    TEXT_PREFIX,
    UNET_PREFIX,
    Origin,
    first_stage_origins,
    text_origins,
    unet_origins,
)
from qbench.workloads.configurations import CONVERSION_REVISION, Family
from qbench.workloads.pipeline_folder import BEYOND_CONFIG

SCALE_FACTOR = "scale_factor"
"""The buffer of LatentDiffusion with the factor, where it was measured in training."""

SHOWN = 3
"""So many differing tensors a message names."""

IGNORED = (
    f"{FIRST_STAGE_PREFIX}loss.",
    f"{FIRST_STAGE_PREFIX}model_ema.",
    f"{TEXT_PREFIX}text_model.embeddings.position_ids",
)
"""What a checkpoint may hold beside the weights: the training loss, averages that are not used in sampling, and the
positions' numbers."""


def convert(checkpoint: Path, family: Family, folder: Path) -> None:
    """Write the pipeline folder that an original checkpoint amounts to.

    Running averages of the weights (EMA) are taken where the checkpoint has them, as in the published evaluations. The
    factor that latents are scaled with is the checkpoint's where it has one. ``qbench.json`` holds what no
    configuration can express.

    Args:
        checkpoint: of latent diffusion or Stable Diffusion, with the first stage in it.
        family: what it is.
        folder: to write into; it exists and is empty. What an error leaves in it is worth nothing.

    Raises:
        DataError: it cannot be read, or is not of this family.
    """
    tensors, has_averages = averaged(checkpoint, read_checkpoint(checkpoint))
    first_stage = _scaled(checkpoint, family, tensors)
    scheduler_class = str(family.scheduler["_class_name"])
    parts: dict[str, tuple[str, str]] = {"scheduler": ("diffusers", scheduler_class)}

    # All is taken from the checkpoint before anything is written, so that another architecture leaves nothing behind.
    taker = _Taker(checkpoint, family, tensors)
    unet = _network(family.denoiser_class, family.denoiser)
    layers = int(family.denoiser["layers_per_block"])
    unet_tensors = taker.take(unet, lambda names: unet_origins(names, layers), UNET_PREFIX, family.heads)
    stage = _network(family.first_stage_class, first_stage)
    stage_tensors = taker.take(stage, first_stage_origins, FIRST_STAGE_PREFIX)
    text, text_tensors = None, {}
    if family.text_encoder is not None:
        text = _text_network(family.text_encoder)
        text_tensors = taker.take(text, text_origins, TEXT_PREFIX)

    _write_network(folder / "unet", unet, family.denoiser_class, unet_tensors)
    parts["unet"] = ("diffusers", family.denoiser_class)
    stage_name = "vqvae" if family.first_stage_class == "VQModel" else "vae"
    _write_network(folder / stage_name, stage, family.first_stage_class, stage_tensors)
    parts[stage_name] = ("diffusers", family.first_stage_class)
    if text is not None:
        _write_text(folder, text, text_tensors)
        parts |= {"text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": ("transformers", "CLIPTokenizer")}
    _write_json(folder / "scheduler" / "scheduler_config.json", dict(family.scheduler))
    if family.pipeline is not None:
        optional = ("feature_extractor", "image_encoder", "safety_checker") if text is not None else ()
        index = {"_class_name": family.pipeline, **parts, **dict.fromkeys(optional, (None, None))}
        _write_json(folder / "model_index.json", index)
    beyond = {"revision": CONVERSION_REVISION, "family": family.name, "averaged": has_averages, "heads": family.heads}
    _write_json(folder / BEYOND_CONFIG, beyond)


class _Taker:
    """Takes the tensors of networks from one checkpoint."""

    def __init__(self, checkpoint: Path, family: Family, tensors: Mapping[str, Tensor]) -> None:
        self.checkpoint, self.family, self.tensors = checkpoint, family, tensors

    def take(
        self,
        network: nn.Module,
        find: Callable[[Iterable[str]], Mapping[str, Origin]],
        prefix: str,
        heads: int | None = None,
    ) -> dict[str, Tensor]:
        """Return the tensors of a network by the network's names, float32.

        Args:
            network: on the meta device.
            find: from its parameters to their origins.
            prefix: of its tensors in the checkpoint; one more than it needs is another architecture.
            heads: of every attention, where the network's own attribute is not right.
        """
        shapes = {name: tuple(parameter.shape) for name, parameter in network.state_dict().items()}
        origins = find(shapes)
        expected = {origin.name for origin in origins.values()}
        present = {name for name in self.tensors if name.startswith(prefix) and not name.startswith(IGNORED)}
        self._check(prefix, "lacks", expected - present)
        self._check(prefix, "has beyond them", present - expected)
        taken, misshapen = {}, []
        for name, origin in origins.items():
            tensor = self.tensors[origin.name].to(torch.float32)
            if origin.third is not None:
                attention: Any = network.get_submodule(name.rpartition(".to_")[0])
                tensor = _third(tensor, origin.third, heads or attention.heads)
            if _core(tensor.shape) != _core(shapes[name]):
                found, wanted = _text_of(self.tensors[origin.name].shape), _text_of(shapes[name])
                part = " in each third" if origin.third is not None else ""
                misshapen.append(f"{origin.name} is {found} for {wanted}{part}")
            else:
                taken[name] = tensor.reshape(shapes[name]).contiguous()
        self._check(prefix, "has in another shape", misshapen)
        return taken

    def _check(self, prefix: str, what: str, differing: Iterable[str]) -> None:
        if differing := sorted(differing):
            more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
            raise DataError(
                f"the checkpoint {self.checkpoint} is not {self.family.name}: of the tensors expected under "
                f"{prefix.rstrip('.')} it {what} {', '.join(differing[:SHOWN])}{more}"
            )


def _scaled(checkpoint: Path, family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The first stage's configuration with the checkpoint's factor, where it has one."""
    factor = tensors.get(SCALE_FACTOR)
    if factor is not None and factor.numel() == 1:
        return {**family.first_stage, "scaling_factor": float(factor)}
    if factor is not None or "scaling_factor" not in family.first_stage:
        raise DataError(
            f"the checkpoint {checkpoint} is not {family.name}: it has no single number {SCALE_FACTOR}, which latents "
            "are multiplied with"
        )
    return dict(family.first_stage)


def _third(fused: Tensor, third: int, heads: int) -> Tensor:
    """Take queries, keys or values: the original splits into heads first, then each head into the three."""
    if fused.shape[0] % (3 * heads):
        return fused  # its shape will be found to be wrong
    width = fused.shape[0] // (3 * heads)
    return fused.reshape(heads, 3, width, *fused.shape[1:])[:, third].reshape(heads * width, *fused.shape[1:])


def _core(shape: Iterable[int]) -> tuple[int, ...]:
    """A shape without the sides of 1x1 kernels: the original has convolutions where diffusers has linear layers."""
    sides = list(shape)
    while len(sides) > 2 and sides[-1] == 1:
        sides.pop()
    return tuple(sides)


def _text_of(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _network(class_name: str, configuration: Mapping[str, Any]) -> nn.Module:
    import diffusers

    with torch.device("meta"):
        network: nn.Module = getattr(diffusers, class_name)(**configuration)
    return network


def _text_network(configuration: Mapping[str, Any]) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        network: nn.Module = CLIPTextModel(CLIPTextConfig(**configuration))
    return network


def _write_network(folder: Path, network: Any, class_name: str, tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True)
    network.save_config(folder)
    save_file(dict(tensors), folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _write_text(folder: Path, network: Any, tensors: Mapping[str, Tensor]) -> None:
    (folder / "text_encoder").mkdir(parents=True)
    network.config.architectures = ["CLIPTextModel"]
    network.config.save_pretrained(folder / "text_encoder")
    # As published folders name them, which every version of transformers reads.
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    write_clip_tokenizer(folder / "tokenizer")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
