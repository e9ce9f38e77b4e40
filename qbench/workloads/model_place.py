"""Where a suite says that a model is: a folder, an original checkpoint, or an id on Hugging Face's hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbench.workloads.assets import Asset, ByHand, HubFolder
from qbench.workloads.pipeline_folder import OTHER_PARTS
from qbench.workloads.reference_settings import PLACES

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@\w[\w.-]*(/\w[\w.-]*)*)?")
"""``owner/name``, with a commit, branch or tag behind an @."""
CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
"""How the names of original checkpoints end, which no name of a repository does."""
PIPELINE_FILES = (
    "unet/config.json|config.json",
    "unet/diffusion_pytorch_model.safetensors|unet/diffusion_pytorch_model.safetensors.index.json|"
    "unet/diffusion_pytorch_model.bin|diffusion_pytorch_model.safetensors|diffusion_pytorch_model.bin",
    "model_index.json|",
    "scheduler/scheduler_config.json|scheduler_config.json|",
    "vae/config.json|",
    "vae/diffusion_pytorch_model.safetensors|vae/diffusion_pytorch_model.bin|",
    "vqvae/config.json|",
    "vqvae/diffusion_pytorch_model.safetensors|vqvae/diffusion_pytorch_model.bin|",
    "text_encoder/config.json|",
    "text_encoder/model.safetensors|text_encoder/pytorch_model.bin|",
    "tokenizer/*|",
    *(f"{part}/*config.json|" for part in OTHER_PARTS),
)
"""What is fetched of a repository that nobody described: the parts that a workload is loaded from, and so much of those
that none can have that their presence is seen."""


def absolute(settings: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return a workload's settings with absolute paths.

    Args:
        settings: as a suite has them, not yet checked.
        base: the suite's folder, where relative paths start.
    """
    found = dict(settings)
    model = found.get("model")
    if isinstance(model, str) and model and not is_hub_id(model, base):
        found["model"] = str(base.absolute() / Path(model).expanduser())
    for key in ("captions", "calibration_captions"):
        if isinstance(found.get(key), str):
            found[key] = str(base.absolute() / Path(found[key]).expanduser())
    reference = found.get("reference")
    if isinstance(reference, Mapping):
        found["reference"] = {
            key: str(base.absolute() / Path(value).expanduser()) if key in PLACES and isinstance(value, str) else value
            for key, value in reference.items()
        }
    return found


def model_asset(model: str, name: str) -> Asset:
    """Return the model that a suite names, be it at hand or not.

    Args:
        model: an absolute path, or an id on the hub.
        name: what the workload is called in messages.
    """
    if is_hub_id(model, None):
        repository, _, revision = model.partition("@")
        return Asset(model, HubFolder(repository, revision or "main", PIPELINE_FILES))
    how = "give the folder of a diffusers pipeline, or an id on Hugging Face's hub such as owner/name"
    return Asset(f"the model of {name!r}", ByHand(Path(model), how))


def is_hub_id(model: str, base: Path | None) -> bool:
    """Whether a model is meant to be on the hub: it looks like an id, and nothing of that name is here."""
    if not HUB_ID.fullmatch(model) or model.endswith(CHECKPOINTS):
        return False
    return base is None or not (base / model).exists()
