"""What suites of the tests are made of: tiny folders of diffusers, pictures, quick methods, an extractor."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from PIL import Image

from qbench.workloads.configurations import DDPM_CIFAR10

CALIBRATION = {"calibration": {"steps": 2, "per_step": 2}}
ROUNDING = {"rounding": {"iterations": 2, "batch_size": 2}}
STEP_SIZES = {"step_sizes": {"iterations": 2, "batch_size": 2}}
FEW = {"activations": {"samples": 2}}
DDPM: Mapping[str, Any] = {
    **DDPM_CIFAR10,
    "sample_size": 16,
    "block_out_channels": (8, 8, 16, 16),
    "norm_num_groups": 4,
}
"""The network of CIFAR-10 at reduced width; on 16x16 pixels, to be quick."""

ENTRY_POINTS = """\
[qbench.extractors]
small-means = small_metrics:Means

[qbench.metrics]
small-distance = small_metrics:Distance
small-spatial = small_metrics:Spatial
"""
MODULE = """\
from hashlib import sha256

from micro_plugins import MicroDistance, MicroPool

from qbench.metrics.metric import Need


class Means(MicroPool):
    title = "means of the quarters, and of the rows, of each colour"
    features = ("pooled", "spatial")
    image_shapes = ()

    def weights(self):
        return {"small-means": sha256(b"small-means").hexdigest()}

    def load(self, device):
        from torch.nn.functional import adaptive_avg_pool2d

        def extract(images, captions):
            images = images.to(device).float() / 255
            pooled, rows = (adaptive_avg_pool2d(images, sides).flatten(1) for sides in ((2, 2), (8, 1)))
            return {"pooled": pooled, "spatial": rows}

        return extract


class Distance(MicroDistance):
    need = Need("small-means", "pooled")


class Spatial(MicroDistance):
    need = Need("small-means", "spatial")
"""
"""An extractor that takes images of any size, and metrics on it; as a distribution to be installed."""


def methods(qdiffusion: str, ptq4dm: str | None = "as-published", split: bool = False) -> list[dict[str, Any]]:
    """Every method, with as little work as still is some."""
    few_rows = {"calibration": {"count": 3}}
    published = {} if ptq4dm is None else {"preset": ptq4dm, "as": "ptq4dm"}
    learned = CALIBRATION | ROUNDING | STEP_SIZES | FEW
    return [
        {"name": "linear", "settings": CALIBRATION},
        {"name": "mse", "settings": CALIBRATION | FEW},
        {"name": "squant", "settings": CALIBRATION},
        {"name": "ptq4dm", **published, "settings": few_rows},
        {"name": "adaround", "settings": CALIBRATION | ROUNDING},
        {"name": "brecq", "settings": learned},
        {"name": "qdiffusion", "preset": qdiffusion, "as": "qdiffusion", "settings": {**learned, "split": split}},
    ]


METHODS = ("linear", "mse", "squant", "ptq4dm", "adaround", "brecq", "qdiffusion")


def ddpm(folder: Path, seed: int = 0, **scheduler: Any) -> Path:
    """Write a UNet of pixels with random weights as google/ddpm-cifar10-32 lies on the hub, and its scheduler."""
    torch.manual_seed(seed)
    UNet2DModel(**DDPM).save_pretrained(folder)
    DDIMScheduler(**scheduler).save_pretrained(folder)
    return folder


def pictures(folder: Path, side: int, count: int = 3, mode: str = "RGB", seed: int = 0) -> Path:
    """Write images of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for index in range(count):
        image = Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).convert(mode)
        image.save(folder / f"{index}.{'jpg' if mode == 'CMYK' else 'png'}")
    return folder


def captions(path: Path, texts: Sequence[str]) -> Path:
    """Write captions, a line each."""
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def records(results: Path) -> dict[tuple[str, str], Any]:
    """The records in a folder of results, by method and bits."""
    found = [json.loads(path.read_text()) for path in sorted((results / "records").glob("*.json"))]
    return {(each["label"], each["bits"]): each for each in found}


def stored(store: Path, kind: str) -> dict[str, float]:
    """When each artefact of a kind was written, by digest."""
    return {each.name: each.stat().st_mtime for each in (store / "artefacts" / kind).glob("*")}
