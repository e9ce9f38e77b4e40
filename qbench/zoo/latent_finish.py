"""From finished runs of the latent stand-ins to what ships: weights, captions, figures, cards and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from diffusers import VQModel
from numpy.typing import NDArray
from torch import Tensor

from qbench.metrics.metric import Gaussian
from qbench.zoo import figures, latent_figures
from qbench.zoo.caption_lists import write_captions
from qbench.zoo.caption_tokenizer import load_tokenizer
from qbench.zoo.contact_sheet import SIDE, write_contact_sheet
from qbench.zoo.fashion_mnist import FashionMnist, shrink, unpad
from qbench.zoo.finish import SAMPLES, SAMPLING_STEPS, check_reference, ship, write_card
from qbench.zoo.first_stages import FACTOR, FirstStage, FirstStageName, load_first_stage
from qbench.zoo.garments import NAMES, SHAPES, TEXTURES, TONES, Garment, caption, describe, find_thresholds
from qbench.zoo.latent_card import clip_card, first_stage_card, latent_card
from qbench.zoo.latent_networks import fashion_kl, fashion_vq, tiny_ldm_denoiser, tiny_ldm_kl_denoiser
from qbench.zoo.latent_training import latents_of, scaling_factor
from qbench.zoo.latent_workloads import TinyLDM, TinyLDMKL, TinyLDMKLSettings, TinyLDMSettings, TinySD, TinySDSettings
from qbench.zoo.networks import FashionFeatures, load_fashion_features, load_weights
from qbench.zoo.reference import load_statistics
from qbench.zoo.text_models import load_clip_tiny, load_tiny_sd

GUIDANCE = (1.0, 2.0, 3.0, 5.0)
"""Guidance scales at which the captioned samples are judged."""


def finish_first_stage(name: FirstStageName, run: Path, train: FashionMnist, test: FashionMnist, to: Path) -> Path:
    """Ships a first stage with the factor of its latents.

    Args:
        name: Which one.
        run: Folder of its finished run.
        train: The training images, 32x32.
        test: The test images, 32x32.
        to: Gets `weights/` and `cards/`.

    Returns:
        Path of the card.

    Raises:
        DataError: The run is not finished.
    """
    module = fashion_vq() if name == "fashion-vq" else fashion_kl()
    weights = to / "weights" / f"{name}.safetensors"
    facts = ship(run, weights, name)
    load_weights(module, weights)
    latents = latents_of(train.images, module)
    factor = scaling_factor(latents)
    facts |= ship(run, weights, name, {FACTOR: str(factor)})
    first_stage = load_first_stage(name, weights)
    images = latent_figures.reconstructed(test.images, first_stage)
    network, real = _judge(to)
    facts |= {
        "parameters": figures.parameter_count(module),
        "scaling_factor": factor,
        "latent_mean": float(latents.mean()),
        "test_images": len(test.images),
        "psnr": latent_figures.peak_signal_to_noise(test.images, images),
        "fd": figures.distance_to_real(shrink(unpad(images)), network, real),
        "fd_test": figures.distance_to_real(shrink(unpad(test.images)), network, real),
    }
    if isinstance(module, VQModel):
        facts |= {
            "codes": module.config.num_vq_embeddings,
            "codes_used": latent_figures.codes_used(latents_of(test.images, module), module),
        }
    half = SIDE * SIDE // 2
    pairs = np.stack([test.images[:half], images[:half]]).reshape(2, SIDE // 2, SIDE, 1, 32, 32)
    rows = pairs.transpose(1, 0, 2, 3, 4, 5).reshape(SIDE * SIDE, 1, 32, 32)
    write_contact_sheet(rows, to / "cards" / f"{name}.png")
    return write_card(to / "cards", name, facts, first_stage_card(facts))


def finish_latent(name: str, run: Path, test: FashionMnist, to: Path) -> Path:
    """Ships a denoiser of latents; its first stage and the feature network lie in `to` already.

    Args:
        name: ``tiny-ldm`` or ``tiny-ldm-kl``.
        run: Folder of its finished run.
        test: The test images, 32x32.
        to: Gets `weights/` and `cards/`.

    Returns:
        Path of the card.

    Raises:
        DataError: The run is not finished, or a file in `to` is missing.
    """
    weights = to / "weights" / f"{name}.safetensors"
    facts = ship(run, weights, name)
    is_vq = name == "tiny-ldm"
    unet = tiny_ldm_denoiser() if is_vq else tiny_ldm_kl_denoiser()
    load_weights(unet, weights)
    workload, sampler = (TinyLDM, TinyLDMSettings().sampler) if is_vq else (TinyLDMKL, TinyLDMKLSettings().sampler)
    first_stage = _first_stage("fashion-vq" if is_vq else "fashion-kl", to)

    def predict(latents: Tensor, timesteps: Tensor, text: Tensor | None) -> Tensor:
        noise: Tensor = unet(latents, timesteps).sample
        return noise

    model = latent_figures.Model(predict, workload.latent_shape, workload.schedule, sampler, first_stage)
    latents = first_stage.factor * latents_of(test.images, first_stage.module)
    network, real = _judge(to)
    distances = {
        str(steps): _distance(latent_figures.sampled_images(model, SAMPLES, steps), network, real)
        for steps in SAMPLING_STEPS
    }
    facts |= {
        "parameters": figures.parameter_count(unet),
        "samples": SAMPLES,
        "sampling_steps": SAMPLING_STEPS,
        "sampler": sampler.model_dump(mode="json"),
        "schedule": workload.schedule.model_dump(mode="json"),
        "held_out_loss": dataclasses.asdict(latent_figures.held_out_loss(model, latents)),
        "fd": distances,
    }
    sheet = latent_figures.sampled_images(model, SIDE * SIDE, max(SAMPLING_STEPS))
    write_contact_sheet(sheet, to / "cards" / f"{name}.png")
    return write_card(to / "cards", name, facts, latent_card(facts))


def finish_clip(run: Path, train: FashionMnist, test: FashionMnist, to: Path) -> Path:
    """Ships the image-text model and the captions of the test and training images.

    Args:
        run: Folder of its finished run.
        train: The training images, 32x32.
        test: The test images, 32x32.
        to: Gets `weights/`, `cards/` and `captions/`.

    Returns:
        Path of the card.

    Raises:
        DataError: The run is not finished.
    """
    weights = to / "weights" / "clip-tiny.safetensors"
    facts = ship(run, weights, "clip-tiny")
    said, calibration = _garments(train, test)
    write_captions(to / "captions", said, calibration)
    network, tokenizer = load_clip_tiny(weights), load_tokenizer()
    captions = [caption(each) for each in said]
    distinct = list(dict.fromkeys(captions))
    cosines = latent_figures.clip_cosines(test.images, distinct, network, tokenizer)
    right = np.array([distinct.index(each) for each in captions])
    own = cosines[np.arange(len(right)), right]
    names = latent_figures.clip_cosines(test.images, [f"a {name}" for name in NAMES], network, tokenizer)
    facts |= {
        "parameters": figures.parameter_count(network),
        "test_images": len(test.images),
        "captions": len(distinct),
        "score": float(100 * np.maximum(own, 0).mean()),
        "score_shuffled": float(100 * np.maximum(cosines[np.arange(len(right)), np.roll(right, 1)], 0).mean()),
        "class_accuracy": float((names.argmax(axis=1) == test.labels).mean()),
        "caption_accuracy": float((cosines.argmax(axis=1) == right).mean()),
    }
    return write_card(to / "cards", "clip-tiny", facts, clip_card(facts))


def finish_tiny_sd(run: Path, train: FashionMnist, test: FashionMnist, to: Path) -> Path:
    """Ships the denoiser that follows captions; first stage, feature network and clip-tiny lie in `to` already.

    Args:
        run: Folder of its finished run.
        train: The training images, 32x32.
        test: The test images, 32x32.
        to: Gets `weights/` and `cards/`.

    Returns:
        Path of the card.

    Raises:
        DataError: The run is not finished, or a file in `to` is missing.
    """
    weights = to / "weights" / "tiny-sd.safetensors"
    facts = ship(run, weights, "tiny-sd")
    unet, conditioning = load_tiny_sd(weights)
    first_stage = _first_stage("fashion-kl", to)

    def predict(latents: Tensor, timesteps: Tensor, text: Tensor | None) -> Tensor:
        noise: Tensor = unet(latents, timesteps, encoder_hidden_states=text).sample
        return noise

    sampler = TinySDSettings().sampler
    model = latent_figures.Model(predict, TinySD.latent_shape, TinySD.schedule, sampler, first_stage, conditioning)
    said, _ = _garments(train, test)
    captions = [caption(each) for each in said]
    latents = first_stage.factor * latents_of(test.images, first_stage.module)
    network, real = _judge(to)
    clip, tokenizer = load_clip_tiny(to / "weights" / "clip-tiny.safetensors"), load_tokenizer()
    by_guidance = {}
    for scale in GUIDANCE:
        images = latent_figures.sampled_images(model, SAMPLES, SAMPLING_STEPS[0], captions, scale)
        cosines = latent_figures.clip_cosines(images, captions[:SAMPLES], clip, tokenizer)
        by_guidance[f"{scale:g}"] = {
            "fd": _distance(images, network, real),
            "score": float(100 * np.maximum(np.diagonal(cosines), 0).mean()),
            "score_shuffled": float(100 * np.maximum(np.diagonal(np.roll(cosines, 1, axis=1)), 0).mean()),
        }
    own = latent_figures.clip_cosines(test.images[:SAMPLES], captions[:SAMPLES], clip, tokenizer)
    facts |= {
        "parameters": figures.parameter_count(unet),
        "parameters_text": sum(each.numel() for each in conditioning.model.parameters()),
        "samples": SAMPLES,
        "sampling_steps": SAMPLING_STEPS,
        "sampler": sampler.model_dump(mode="json"),
        "schedule": TinySD.schedule.model_dump(mode="json"),
        "held_out_loss": dataclasses.asdict(latent_figures.held_out_loss(model, latents, captions)),
        "guidance": by_guidance,
        "score_real": float(100 * np.maximum(np.diagonal(own), 0).mean()),
    }
    asked = sheet_captions()
    sheet = latent_figures.sampled_images(model, len(asked), max(SAMPLING_STEPS), asked)
    write_contact_sheet(sheet, to / "cards" / "tiny-sd.png")
    return write_card(to / "cards", "tiny-sd", facts, latent_card(facts))


def sheet_captions() -> Sequence[str]:
    """Captions of the card's picture: a class in each row, from dark and plain to bright and patterned."""
    rows = [name for name in NAMES if name not in ("pullover", "shirt")]
    kinds = [(tone, texture) for tone in (TONES[0], TONES[2]) for texture in TEXTURES]
    return [
        caption(Garment(name, tone, shape, texture))
        for name in rows
        for tone, texture in kinds
        for shape in SHAPES[name]
    ]


def _first_stage(name: FirstStageName, to: Path) -> FirstStage:
    return load_first_stage(name, to / "weights" / f"{name}.safetensors")


def _judge(to: Path) -> tuple[FashionFeatures, Gaussian]:
    extractor, statistics = (to / "weights" / f"{name}.safetensors" for name in ("fashion-features", "fashion-train"))
    check_reference(statistics, extractor)
    return load_fashion_features(extractor), load_statistics(statistics)["pooled"]


def _distance(images: NDArray[np.uint8], network: FashionFeatures, real: Gaussian) -> float:
    return figures.distance_to_real(shrink(unpad(images)), network, real)


def _garments(train: FashionMnist, test: FashionMnist) -> tuple[list[Garment], list[Garment]]:
    """What is said of the test and of the training images."""
    thresholds = find_thresholds(unpad(train.images), train.labels)
    return (
        describe(unpad(test.images), test.labels, thresholds),
        describe(unpad(train.images), train.labels, thresholds),
    )
