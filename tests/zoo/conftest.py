import os
from pathlib import Path

import numpy as np
import pytest
import torch

from qbench.zoo.fashion_mnist import FashionMnist


@pytest.fixture(scope="session")
def synthetic() -> FashionMnist:
    """64 random images with labels, in place of the data set."""
    random = np.random.default_rng(0)
    return FashionMnist(random.integers(0, 256, (64, 1, 16, 16), dtype=np.uint8), random.integers(0, 10, 64))


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
