import dataclasses
import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from qbench.zoo import caption_lists
from qbench.zoo.caption_tokenizer import load_tokenizer
from qbench.zoo.fashion_mnist import MD5, FashionMnist, pad
from qbench.zoo.first_stages import FACTOR
from qbench.zoo.garments import describe, find_thresholds
from qbench.zoo.latent_networks import (
    TinySD,
    clip_tiny,
    fashion_kl,
    fashion_vq,
    tiny_ldm_denoiser,
    tiny_ldm_kl_denoiser,
)
from qbench.zoo.paths import weights_path
from qbench.zoo.recipes import RECIPES
from qbench.zoo.tensor_file import write_tensors

FACTORS = {"fashion-vq": 0.5, "fashion-kl": 0.25}
"""Of the latents of the first stages that no training made."""


@pytest.fixture(scope="session")
def synthetic() -> FashionMnist:
    """64 random images with labels, in place of the data set."""
    random = np.random.default_rng(0)
    return FashionMnist(random.integers(0, 256, (64, 1, 16, 16), dtype=np.uint8), random.integers(0, 10, 64))


@pytest.fixture(scope="session")
def patches() -> FashionMnist:
    """64 patches of 28x28 pixels with every label, grey and noisy in various degrees: each can be described."""
    random = np.random.default_rng(1)
    images = np.zeros((64, 28, 28), np.uint8)
    for image in images:
        top, left, bottom, right = (*random.integers(0, 10, 2), *random.integers(18, 29, 2))
        grey = random.integers(60, 220) + random.integers(-30, 31, (28, 28)) * random.random()
        image[top:bottom, left:right] = grey[top:bottom, left:right]
    return FashionMnist(images, np.arange(64) % 10)


@pytest.fixture(scope="session")
def padded(patches: FashionMnist) -> FashionMnist:
    """The same patches at 32x32, as the latent models have images."""
    return FashionMnist(pad(patches.images), patches.labels)


@pytest.fixture(scope="session")
def said(patches: FashionMnist):
    """What is said of each patch."""
    return describe(patches.images, patches.labels, find_thresholds(patches.images, patches.labels))


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, patches: FashionMnist) -> Path:
    """A folder with the patches in the four files of the data set."""
    folder = tmp_path_factory.mktemp("fashion")
    for stem in ("train", "t10k"):
        for name, content in (("images-idx3", patches.images), ("labels-idx1", patches.labels.astype(np.uint8))):
            shape = b"".join(size.to_bytes(4, "big") for size in content.shape)
            idx = bytes([0, 0, 8, content.ndim]) + shape + content.tobytes()
            (folder / f"{stem}-{name}-ubyte.gz").write_bytes(gzip.compress(idx))
    return folder


@pytest.fixture
def data(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, published: what is asked to download the data set reads it instead."""
    for path in packed.iterdir():
        monkeypatch.setitem(MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr("qbench.zoo.fashion_mnist._downloaded", lambda: packed)
    return packed


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe takes four images at a time."""
    for name, recipe in RECIPES.items():
        small = dataclasses.replace(recipe.settings, batch=4)
        monkeypatch.setitem(RECIPES, name, dataclasses.replace(recipe, settings=small))


@pytest.fixture(scope="session")
def untrained_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of the shipped weights, where no training has made the latent models."""
    folder = tmp_path_factory.mktemp("weights")
    tokenizer = load_tokenizer()
    networks = {
        "fashion-vq": fashion_vq,
        "fashion-kl": fashion_kl,
        "tiny-ldm": tiny_ldm_denoiser,
        "tiny-ldm-kl": tiny_ldm_kl_denoiser,
        "tiny-sd": partial(TinySD, len(tokenizer), tokenizer.eos_token_id),
        "clip-tiny": partial(clip_tiny, len(tokenizer)),
    }
    for seed, (name, build) in enumerate(networks.items()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            halves = {key: tensor.half() for key, tensor in build().state_dict().items()}
        write_tensors(folder / f"{name}.safetensors", halves, {FACTOR: str(FACTORS[name])} if name in FACTORS else {})
    for name in ("fashion-features", "fashion-train"):
        shutil.copy(weights_path(name), folder)
    return folder


@pytest.fixture
def untrained(untrained_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models are loaded from that folder as if it were the shipped one."""
    monkeypatch.setattr("qbench.zoo.paths.WEIGHTS", untrained_weights)
    return untrained_weights


@pytest.fixture
def captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said) -> Iterator[Path]:
    """A folder of captions that are read as if it were the shipped one: 64 to sample, 8 to calibrate on."""
    folder = tmp_path / "captions"
    caption_lists.write_captions(folder, said, said[:8])
    monkeypatch.setattr(caption_lists, "CAPTIONS", folder)
    lists = (caption_lists.evaluation_captions, caption_lists.calibration_captions)
    for each in lists:
        each.cache_clear()
    yield folder
    for each in lists:
        each.cache_clear()


@pytest.fixture(scope="session")
def fashion_folder() -> Path:
    """Folder of the real data set."""
    folder = os.environ.get("QBENCH_FASHION_DIR")
    if folder is None:
        pytest.skip("QBENCH_FASHION_DIR does not name a folder with the four Fashion-MNIST .gz files")
    return Path(folder)


@pytest.fixture(autouse=True)
def one_thread():
    """Byte-for-byte equality is promised for one thread count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
