"""From finished training runs and the data to what ships: weights, statistics, images, figures, cards and picture."""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.zoo import figures
from qbench.zoo.calibration_images import spread, write_calibration_images
from qbench.zoo.card import calibration_card, features_card, tiny_ddim_card
from qbench.zoo.checkpoint import FILE_NAME
from qbench.zoo.contact_sheet import SIDE, write_contact_sheet
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.loop import WEIGHTS_NAME
from qbench.zoo.networks import load_fashion_features, load_tiny_ddim
from qbench.zoo.reference import load_statistics, read_reference, reference_statistics, write_reference
from qbench.zoo.tensor_file import read_tensors, write_tensors

SAMPLES = 2_000
"""Images behind every distance of samples."""

SAMPLING_STEPS = (20, 50)
"""DDIM steps at which the samples are judged; a sibling's only at the first."""


def finish_features(run: Path, train: FashionMnist, test: FashionMnist, to: Path) -> Path:
    """Ships a feature network with the statistics of the real images.

    Args:
        run: Folder of a finished `fashion-features` run.
        train: The training images.
        test: The test images.
        to: Gets `weights/` and `cards/`.

    Returns:
        Path of the card.

    Raises:
        DataError: The run is not finished.
    """
    weights = to / "weights" / "fashion-features.safetensors"
    facts = ship(run, weights, "fashion-features")
    statistics = reference_statistics(train.images, weights)
    reference = write_reference(
        to / "weights" / "fashion-train.safetensors", statistics, samples=len(train.images), extractor=weights
    )
    network, real = load_fashion_features(weights), statistics["pooled"]
    facts |= {
        "parameters": figures.parameter_count(network),
        "accuracy_test": figures.accuracy(test.images, test.labels, network),
        "accuracy_train": figures.accuracy(train.images, train.labels, network),
        "test_images": len(test.images),
        "train_images": len(train.images),
        "fd_test": figures.distance_to_real(test.images, network, real),
        "samples": SAMPLES,
        "fd_test_part": figures.distance_to_real(test.images[:SAMPLES], network, real),
        "fd_noise": figures.distance_to_real(figures.noise_images(SAMPLES), network, real),
        "reference_sha256": reference.sha256,
        "reference_bytes": reference.path.stat().st_size,
    }
    return write_card(to / "cards", "fashion-features", facts, features_card(facts))


def finish_tiny_ddim(run: Path, sibling: Path | None, test: FashionMnist, to: Path) -> Path:
    """Ships a denoiser; its images are judged with the feature network and statistics that lie in `to` already.

    Args:
        run: Folder of a finished `tiny-ddim` run.
        sibling: Folder of a finished run with another seed; its figures go on the card, its weights do not ship.
        test: The test images.
        to: Gets `weights/` and `cards/`.

    Returns:
        Path of the card.

    Raises:
        DataError: A run is not finished, or the feature network or its statistics are missing or do not match.
    """
    weights = to / "weights" / "tiny-ddim.safetensors"
    facts = ship(run, weights, "tiny-ddim")
    facts |= {"parameters": figures.parameter_count(load_tiny_ddim(weights)), "samples": SAMPLES}
    facts |= _denoiser_figures(weights, test, to, SAMPLING_STEPS)
    if sibling is not None:
        figures_of_sibling = _denoiser_figures(sibling / WEIGHTS_NAME, test, to, SAMPLING_STEPS[:1])
        facts["sibling"] = run_facts(sibling, "tiny-ddim") | figures_of_sibling
    picture = figures.sampled_images(load_tiny_ddim(weights), SIDE * SIDE, max(SAMPLING_STEPS))
    write_contact_sheet(picture, to / "cards" / "tiny-ddim.png")
    return write_card(to / "cards", "tiny-ddim", facts, tiny_ddim_card(facts))


def ship_calibration_images(train: FashionMnist, to: Path) -> Path:
    """Ships a few real images for methods that calibrate on them.

    Args:
        train: The training images.
        to: Gets `weights/` and `cards/`.

    Returns:
        Path of the card.

    Raises:
        DataError: There are fewer images than ship.
    """
    name = "fashion-calibration"
    path = to / "weights" / f"{name}.safetensors"
    written = write_calibration_images(path, train.images)
    facts = {
        "sha256": written.digest,
        "bytes": path.stat().st_size,
        "images": written.count,
        "available": len(train.images),
        "per_class": np.bincount(train.labels[spread(len(train.labels))], minlength=10).tolist(),
    }
    return write_card(to / "cards", name, facts, calibration_card(facts))


def _denoiser_figures(weights: Path, test: FashionMnist, to: Path, sampling_steps: Sequence[int]) -> dict[str, Any]:
    extractor, statistics = (to / "weights" / f"{name}.safetensors" for name in ("fashion-features", "fashion-train"))
    check_reference(statistics, extractor)
    network, real = load_fashion_features(extractor), load_statistics(statistics)["pooled"]
    model = load_tiny_ddim(weights)
    distances = {
        str(steps): figures.distance_to_real(figures.sampled_images(model, SAMPLES, steps), network, real)
        for steps in sampling_steps
    }
    return {"held_out_loss": dataclasses.asdict(figures.held_out_loss(model, test.images)), "fd": distances}


def check_reference(statistics: Path, extractor: Path) -> None:
    """Refuses statistics of the real images that another feature network made.

    Raises:
        DataError: They do not belong together, or one is missing.
    """
    if read_reference(statistics).extractor_sha256 != file_digest(extractor):
        raise DataError(f"{statistics} was made with other weights than {extractor}; finish fashion-features first.")


def ship(run: Path, weights: Path, name: str, said: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Copies the weights of a run, read and written again, and says what is known of them.

    Args:
        run: Folder of the run.
        weights: The file that ships.
        name: What must have been trained.
        said: More strings to store beside the weights.

    Raises:
        DataError: The run is not finished, or is of another model.
    """
    facts = run_facts(run, name)
    file = read_tensors(run / WEIGHTS_NAME)
    write_tensors(weights, file.tensors, {**file.metadata, **(said or {})})
    return facts | {"sha256": file_digest(weights), "bytes": weights.stat().st_size}


def run_facts(run: Path, name: str) -> dict[str, Any]:
    """What is known of a finished run: recipe, seconds, loss, hardware, versions.

    Raises:
        DataError: The run is not finished, or is of another model.
    """
    if not (run / WEIGHTS_NAME).is_file():
        raise DataError(f"{run} holds no finished run: {WEIGHTS_NAME} is missing. Run the training to its end first.")
    said = read_tensors(run / WEIGHTS_NAME).metadata
    if said.get("name") != name:
        raise DataError(f"{run} holds a run of {said.get('name')}, not of {name}.")
    recipe = json.loads(said["recipe"])
    progress = json.loads(read_tensors(run / FILE_NAME).metadata["progress"])
    return {
        "recipe": recipe,
        "training_seconds": round(progress["seconds"]),
        "training_loss": progress["smoothed_loss"],
        "hardware": _hardware(recipe),
        "versions": {"torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__},
    }


def _hardware(recipe: dict[str, Any]) -> str:
    if recipe["device"] != "cpu":
        return "one CUDA device"
    threads = "one thread" if recipe["threads"] == 1 else f"{recipe['threads']} threads"
    return f"{threads} of a {os.cpu_count()}-core {platform.machine().replace('_', '-')} CPU"


def write_card(folder: Path, name: str, facts: dict[str, Any], text: str) -> Path:
    """Writes the facts as JSON and the card beside them; returns the card's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    path = folder / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    return path
