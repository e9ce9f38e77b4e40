"""The text of a model card, a pure function of measured facts."""

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
"""What `qbench.zoo.finish` measured; it lies beside each card as JSON."""

DATA = """\
Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), by Zalando SE, MIT licence: 60,000 training and
10,000 test images of garments, 28x28 grey, ten classes; shrunk here to 16x16 by area averaging and rounded to
whole grey values once. No other data was used."""

_LICENCE = """\
The MIT License (MIT). Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
"""Of the data set; it goes wherever its images go."""

REPEAT = """\
The same seed, thread count, machine kind and library versions give the same bytes, also when the run was
interrupted and resumed."""


def tiny_ddim_card(facts: Facts) -> str:
    """Card of the tiny denoiser."""
    recipe = facts["recipe"]
    parts = [
        "# tiny-ddim",
        "Unconditional noise-estimation UNet for 16x16 grey images, in blocks of 2x2 pixels (4x8x8 latents, an exact\n"
        "change of layout). It is a stand-in that makes suites runnable anywhere in minutes; its images are worth\n"
        "nothing by themselves, and its figures must not be compared with those of other data.",
        file_table("tiny-ddim", facts),
        "## Data\n\n" + DATA,
        "## Training\n\n" + _denoiser_recipe(recipe) + "\n\n" + effort_of(facts) + "\n\n" + command_of(recipe) + REPEAT,
        "## Held-out figures\n\n"
        "Loss: mean squared error of the predicted noise on the 10,000 test images, the same noise and timesteps for\n"
        "every model, each timestep ten times. Frechet distance (fd): pooled features of `fashion-features`, "
        f"{facts['samples']:,}\nDDIM samples (eta 0, seed 0) against the 60,000 training images; the card of "
        "`fashion-features` says what real\nimages and pure noise get.\n\n" + _denoiser_figures(facts),
    ]
    if "sibling" in facts:
        sibling = facts["sibling"]["recipe"]
        parts.append(
            f"## Sibling\n\nThe sibling is the same recipe with seed {sibling['seed']}. It shows what the training "
            "seed changes; its weights do not\nship. "
            + effort_of(facts["sibling"])
            + "\n\n"
            + command_of(sibling).rstrip()
        )
    steps = max(map(int, facts["fd"]))
    parts.append(
        "## Samples\n\n![64 samples](tiny-ddim.png)\n\n"
        f"The first 64 samples of seed 0, DDIM {steps} steps, not selected, every pixel four times magnified."
    )
    return "\n\n".join(parts) + "\n"


def features_card(facts: Facts) -> str:
    """Card of the feature network and of the statistics of the real images."""
    recipe = facts["recipe"]
    mirrored = "cross-entropy, half of the images mirrored"
    parts = [
        "# fashion-features",
        "Small convolutional classifier of 16x16 grey garments, whose features judge samples: `pooled` (64, the last\n"
        "map averaged), `spatial` (128, the first 8 channels of a 4x4 map in the middle), `logits` (10). Group norm\n"
        "only: an image's features do not depend on its batch. Distances on these features are not FID or sFID.",
        file_table("fashion-features", facts),
        "## Data\n\n" + DATA,
        "## Training\n\n"
        f"{recipe['iterations']:,} iterations of {recipe['batch']} images, {mirrored}, {optimizer_of(recipe)}\n\n"
        + effort_of(facts)
        + "\n\n"
        + command_of(recipe)
        + REPEAT,
        "## Held-out figures\n\n"
        "| figure | value |\n|---|---|\n"
        f"| accuracy, {facts['test_images']:,} test images | {facts['accuracy_test']:.2%} |\n"
        f"| accuracy, {facts['train_images']:,} training images | {facts['accuracy_train']:.2%} |\n"
        f"| fd of the {facts['test_images']:,} test images (the floor) | {facts['fd_test']:.4f} |\n"
        f"| fd of the first {facts['samples']:,} test images | {facts['fd_test_part']:.4f} |\n"
        f"| fd of {facts['samples']:,} images of standard normal noise | {facts['fd_noise']:.2f} |\n\n"
        "fd: Frechet distance on `pooled` to the training images.",
        "## Statistics of the real images\n\n"
        f"`fashion-train.safetensors` ({facts['reference_bytes']:,} bytes, sha256 `{facts['reference_sha256']}`):\n"
        f"float64 mean and covariance (divided by N - 1) of `pooled` and `spatial` over the "
        f"{facts['train_images']:,} training images,\nmade with the weights as shipped:\n\n"
        "```\npython -m qbench.zoo.train reference\n```",
    ]
    return "\n\n".join(parts) + "\n"


def calibration_card(facts: Facts) -> str:
    """Card of the real images that methods may be calibrated on."""
    parts = [
        "# fashion-calibration",
        f"{facts['images']:,} real images for methods that calibrate `tiny-ddim` on real images: of the "
        f"{facts['available']:,} training images,\nin their published order, those at the indices "
        f"floor(i * {facts['available']:,} / {facts['images']:,}). They are among the images that\n"
        "`tiny-ddim` was trained on and that its samples are compared with.",
        "| | |\n|---|---|\n"
        f"| file | `fashion-calibration.safetensors`, uint8, {facts['bytes']:,} bytes |\n"
        f"| sha256 | `{facts['sha256']}` |\n"
        f"| images of class 0 to 9 | {', '.join(map(str, facts['per_class']))} |",
        "## Data\n\n" + DATA,
        "```\npython -m qbench.zoo.train calibration-images\n```",
        "## Licence of the images\n\n" + _LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def file_table(name: str, facts: Facts) -> str:
    """What file it is, with its digest and parameters."""
    return (
        "| | |\n|---|---|\n"
        f"| file | `{name}.safetensors`, fp16, {facts['bytes']:,} bytes |\n"
        f"| sha256 | `{facts['sha256']}` |\n"
        f"| parameters | {facts['parameters']:,} |"
    )


def _denoiser_recipe(recipe: Facts) -> str:
    return (
        f"Noise prediction, 1,000 steps, linear betas from 1e-4 to 0.02, mean squared error; all 60,000 training "
        f"images;\n{recipe['iterations']:,} iterations of {recipe['batch']} images "
        f"({recipe['iterations'] * recipe['batch']:,} in all), no augmentation, timesteps spread evenly over\n"
        f"each batch, {optimizer_of(recipe)}"
    )


def optimizer_of(recipe: Facts) -> str:
    """How the weights were stepped and averaged."""
    return (
        f"AdamW (weight decay {recipe['weight_decay']:g}), learning rate {recipe['learning_rate']:g}\nafter "
        f"{recipe['warmup']} iterations of warm-up, falling as a half cosine to 0, gradient norm clipped at "
        f"{recipe['clip']:g}. The weights\nare a running average (decay {recipe['ema_decay']:g}), rounded to fp16."
    )


def effort_of(facts: Facts) -> str:
    """How long it took, on what."""
    versions = ", ".join(f"{library} {version}" for library, version in sorted(facts["versions"].items()))
    return (
        f"It took {facts['training_seconds'] / 60:.0f} minutes on {facts['hardware']} that had other work to do, "
        f"with {versions}."
    )


def command_of(recipe: Facts) -> str:
    """The command that trains it."""
    return (
        f"```\npython -m qbench.zoo.train {recipe['name']} --seed {recipe['seed']} --iterations {recipe['iterations']} "
        f"--threads {recipe['threads']} --device {recipe['device']}\n```\n\n"
    )


def _denoiser_figures(facts: Facts) -> str:
    models = {f"seed {facts['recipe']['seed']} (shipped)": facts}
    if "sibling" in facts:
        models[f"seed {facts['sibling']['recipe']['seed']} (sibling)"] = facts["sibling"]
    rows = [["figure", *models], ["---"] * (1 + len(models))]
    rows.append(["loss, all timesteps", *(f"{found['held_out_loss']['overall']:.4f}" for found in models.values())])
    rows += [
        [f"loss, timesteps {band}", *(f"{found['held_out_loss']['bands'][band]:.4f}" for found in models.values())]
        for band in facts["held_out_loss"]["bands"]
    ]
    rows += [
        [f"fd, DDIM {steps} steps", *(_distance(found, steps) for found in models.values())] for steps in facts["fd"]
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _distance(facts: Facts, steps: str) -> str:
    return f"{facts['fd'][steps]:.2f}" if steps in facts["fd"] else "not measured"
