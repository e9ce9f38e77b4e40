"""Which function ships which model, and the size of the images that it is given."""

from collections.abc import Callable
from pathlib import Path

from qbench.errors import DataError, did_you_mean
from qbench.zoo.fashion_mnist import FashionMnist, load_fashion_mnist, pad
from qbench.zoo.finish import finish_features, finish_tiny_ddim
from qbench.zoo.latent_finish import finish_clip, finish_first_stage, finish_latent, finish_tiny_sd

Finish = Callable[[Path, FashionMnist, FashionMnist, Path], Path]
"""From the run, the training images, the test images and the folder that gets everything to the card."""

ON_32_PIXELS: dict[str, Finish] = {
    "fashion-vq": lambda run, train, test, to: finish_first_stage("fashion-vq", run, train, test, to),
    "fashion-kl": lambda run, train, test, to: finish_first_stage("fashion-kl", run, train, test, to),
    "tiny-ldm": lambda run, train, test, to: finish_latent("tiny-ldm", run, test, to),
    "tiny-ldm-kl": lambda run, train, test, to: finish_latent("tiny-ldm-kl", run, test, to),
    "tiny-sd": finish_tiny_sd,
    "clip-tiny": finish_clip,
}


def finish_run(name: str, run: Path, sibling: Path | None, data: Path | None, to: Path) -> Path:
    """Ship a model.

    Args:
        name: What was trained.
        run: Folder of the finished run.
        sibling: Folder of a run with another seed; for ``tiny-ddim`` only.
        data: Folder of the data set; None downloads it.
        to: Gets everything.

    Returns:
        Path of the card.

    Raises:
        DataError: There is no such model, its run is not finished, or the data are missing.
    """
    known = ["fashion-features", "tiny-ddim", *ON_32_PIXELS]
    if name not in known:
        raise DataError(f"There is no model {name!r}: {did_you_mean(name, known)}")
    prepare = pad if name in ON_32_PIXELS else None
    train, test = load_fashion_mnist("train", data, prepare), load_fashion_mnist("test", data, prepare)
    if name == "tiny-ddim":
        return finish_tiny_ddim(run, sibling, test, to)
    if name == "fashion-features":
        return finish_features(run, train, test, to)
    return ON_32_PIXELS[name](run, train, test, to)
