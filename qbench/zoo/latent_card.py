"""The text of the latent stand-ins' cards, a pure function of measured facts."""

from qbench.zoo.card import REPEAT, Facts, command_of, effort_of, file_table, optimizer_of

_DATA_32 = """\
Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), by Zalando SE, MIT licence: 60,000 training and
10,000 test images of garments, 28x28 grey, ten classes; here with two black pixels around them, 32x32. No other data
was used."""

_CAPTIONS = """\
Captions are made from class names and what can be seen: the tone (in which third of all training images the mean
grey value of the garment lies), the shape (on which side of its class' median its width, of shoes and bags its height,
lies) and the texture (likewise, its contrast from pixel to pixel), in five wordings; see `qbench/zoo/garments.py`."""

_TITLES = {
    "fashion-vq": "First stage with a codebook of 512 codes: 32x32 grey images to 3x8x8 latents, like LDM's VQ-f4.",
    "fashion-kl": "Variational first stage: 32x32 grey images to 4x8x8 latents, as KL-f8 of LDM has it at factor 4.",
    "tiny-ldm": "Unconditional noise-estimation UNet of 3x8x8 latents (`fashion-vq`), laid out like LDM-4 on\n"
    "LSUN-Bedrooms.",
    "tiny-ldm-kl": "Unconditional noise-estimation UNet of 4x8x8 latents (`fashion-kl`), laid out like LDM-8 on\n"
    "LSUN-Churches: residual blocks scaled and shifted by the timestep, and residual blocks that change the size.",
    "tiny-sd": "Noise-estimation UNet of 4x8x8 latents (`fashion-kl`) with cross-attention to captions, and the text\n"
    "encoder that was trained with it, laid out like Stable Diffusion.",
}

_STANDIN = """\
It is a stand-in that makes suites runnable anywhere in minutes; its images are worth nothing by themselves, and its
figures must not be compared with those of other data."""


def first_stage_card(facts: Facts) -> str:
    """Card of a first stage."""
    recipe = facts["recipe"]
    codes = f"| codes that test images use | {facts['codes_used']} of {facts['codes']} |\n" if "codes" in facts else ""
    return _joined(
        recipe["name"],
        facts,
        _DATA_32,
        f"Mean absolute plus mean squared error of the decoded image{_regularized(recipe['name'])};\n"
        f"{recipe['iterations']:,} iterations of {recipe['batch']} images, {optimizer_of(recipe)}",
        "| figure | value |\n|---|---|\n"
        f"| factor of the latents (1 / standard deviation) | {facts['scaling_factor']:g} |\n"
        f"| peak signal-to-noise ratio, {facts['test_images']:,} test images | {facts['psnr']:.2f} dB |\n"
        f"| fd of the {facts['test_images']:,} decoded test images | {facts['fd']:.3f} |\n"
        f"| fd of the same images as they are | {facts['fd_test']:.3f} |\n"
        f"{codes}\n"
        "fd: Frechet distance on `pooled` of `fashion-features`, after shrinking to 16x16, to the training images.",
        "Four times a row of test images and below it the same decoded; the first 32, each pixel magnified four times.",
    )


def latent_card(facts: Facts) -> str:
    """Card of a denoiser of latents."""
    recipe, schedule, sampler = facts["recipe"], facts["schedule"], facts["sampler"]
    has_text = "guidance" in facts
    training = (
        f"Noise prediction, 1,000 steps, scaled-linear betas from {schedule['beta_start']:g} to "
        f"{schedule['beta_end']:g}, mean squared error on the scaled\nlatents of all 60,000 training images; "
        f"{recipe['iterations']:,} iterations of {recipe['batch']} images, timesteps spread evenly over each batch,\n"
        f"{optimizer_of(recipe)}"
    )
    if has_text:
        training += (
            f"\nThe text encoder ({facts['parameters_text']:,} more parameters in the same file) is trained along; "
            "one caption in ten is empty."
        )
    rows = [f"| loss, all timesteps | {facts['held_out_loss']['overall']:.4f} |"]
    rows += [f"| loss, timesteps {band} | {value:.4f} |" for band, value in facts["held_out_loss"]["bands"].items()]
    name, distances, steps = _sampler(sampler), facts.get("fd", {}), max(facts["sampling_steps"])
    rows += [f"| fd, {name}, {count} steps | {value:.2f} |" for count, value in distances.items()]
    told = (
        "| figure | value |\n|---|---|\n" + "\n".join(rows) + "\n\n"
        "Loss: on the 10,000 test images, each timestep ten times. fd: Frechet distance on `pooled` of\n"
        f"`fashion-features`, {facts['samples']:,} samples of seed 0 shrunk to 16x16, to the 60,000 training images; "
        "the card of\n`fashion-features` says what real images and pure noise get."
    )
    picture = f"The first 64 samples of seed 0, {name}, {steps} steps, not selected, each pixel magnified four times."
    if has_text:
        told += "\n\n" + _guidance(facts)
        picture = (
            f"{name}, {steps} steps, guidance {sampler['guidance_scale']:g}, not selected. A class in each row "
            "(t-shirt, trousers, dress, coat,\nsandal, sneaker, bag, ankle boot): dark plain, dark patterned, bright "
            "plain, bright patterned, each slim and wide (shoes and\nbags: low and tall)."
        )
    data = _DATA_32 + ("\n\n" + _CAPTIONS if has_text else "")
    return _joined(recipe["name"], facts, data, training, told, picture)


def clip_card(facts: Facts) -> str:
    """Card of the image-text model."""
    recipe = facts["recipe"]
    parts = [
        "# clip-tiny",
        "Small open_clip model of 32x32 grey garments and their captions, for the metric `clip-tiny`. Its score is\n"
        "not CLIP score and must not be compared with it.",
        file_table(recipe["name"], facts),
        "## Data\n\n" + _DATA_32 + "\n\n" + _CAPTIONS,
        "## Training\n\nCross-entropy of images against captions and back; images of one caption share its "
        f"probability.\n{recipe['iterations']:,} iterations of {recipe['batch']} pairs, {optimizer_of(recipe)}\n\n"
        + effort_of(facts)
        + "\n\n"
        + command_of(recipe)
        + REPEAT,
        "## Held-out figures\n\n"
        f"On the {facts['test_images']:,} test images, which have {facts['captions']} different captions:\n\n"
        "| figure | value |\n|---|---|\n"
        f"| score (100 x mean cosine) with the right captions | {facts['score']:.2f} |\n"
        f"| score with captions shuffled by one | {facts['score_shuffled']:.2f} |\n"
        f"| images whose class is the nearest of ten names | {facts['class_accuracy']:.1%} |\n"
        f"| images whose caption is the nearest of all {facts['captions']} | {facts['caption_accuracy']:.1%} |",
    ]
    return "\n\n".join(parts) + "\n"


def _joined(name: str, facts: Facts, data: str, training: str, told: str, picture: str) -> str:
    recipe = facts["recipe"]
    parts = [
        f"# {name}",
        _TITLES[name] + "\n" + _STANDIN,
        file_table(name, facts),
        "## Data\n\n" + data,
        "## Training\n\n" + training + "\n\n" + effort_of(facts) + "\n\n" + command_of(recipe) + REPEAT,
        "## Held-out figures\n\n" + told,
        f"## Picture\n\n![{name}]({name}.png)\n\n{picture}",
    ]
    return "\n\n".join(parts) + "\n"


def _regularized(name: str) -> str:
    if name == "fashion-vq":
        return ", and the squared distance\nbetween latents and their codes, a quarter of it for the codes' side"
    return " of a draw of the latents, and\n1e-4 times their divergence from a standard normal"


def _sampler(sampler: Facts) -> str:
    return (
        f"{sampler['name'].upper()} (eta {sampler['eta']:g})" if sampler["name"] == "ddim" else sampler["name"].upper()
    )


def _guidance(facts: Facts) -> str:
    rows = [
        f"| {scale} | {found['fd']:.2f} | {found['score']:.2f} | {found['score_shuffled']:.2f} |"
        for scale, found in facts["guidance"].items()
    ]
    return (
        f"{_sampler(facts['sampler'])}, {facts['sampling_steps'][0]} steps, {facts['samples']:,} captions of test "
        "images;\nscore: 100 x mean cosine under `clip-tiny`, which real test images and their captions score "
        f"{facts['score_real']:.2f}:\n\n"
        "| guidance | fd | score | score with captions shuffled by one |\n|---|---|---|---|\n" + "\n".join(rows)
    )
