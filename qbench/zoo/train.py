"""Command line of the zoo: `python -m qbench.zoo.train --help`."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qbench.errors import DataError, QbenchError

if TYPE_CHECKING:
    from torch import nn

    from qbench.zoo.loop import BatchLoss
    from qbench.zoo.settings import TrainingSettings

app = typer.Typer(help="Train the tiny models that ship with qbench.", no_args_is_help=True, add_completion=False)

Data = Annotated[
    Path | None, typer.Option(help="Folder with the four Fashion-MNIST .gz files; left out, they are downloaded.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; default ./zoo-out/NAME, with the seed if not 0.")]
To = Annotated[Path, typer.Option(help="Gets weights/ and cards/; qbench/zoo in a checkout.")]
Seed = Annotated[int, typer.Option(help="Seed; 0 is the shipped model, others are its siblings.")]
Iterations = Annotated[int | None, typer.Option(min=1, help="Length of the run; default: the shipped model's.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; the bytes of the result depend on it.")]
DeviceName = Annotated[Literal["cpu", "cuda"], typer.Option(help="cpu (reproducible to the byte) or cuda.")]
Resume = Annotated[bool, typer.Option("--resume/--fresh", help="Go on from the folder's checkpoint, or start again.")]


TRAININGS = {
    "tiny-ddim": "Train the tiny denoiser of pixels.",
    "fashion-features": "Train the classifier whose features judge the images.",
    "fashion-vq": "Train the first stage with a codebook.",
    "fashion-kl": "Train the variational first stage.",
    "tiny-ldm": "Train the tiny denoiser on the latents of fashion-vq.",
    "tiny-ldm-kl": "Train the tiny denoiser on the latents of fashion-kl.",
    "tiny-sd": "Train the tiny denoiser that follows captions, with its text encoder.",
    "clip-tiny": "Train the model that judges how well images fit their captions.",
}
"""Every model that can be trained, and what the command's help says."""


def _training(name: str) -> Callable[..., None]:
    """The command that trains a model."""

    def command(
        data: Data = None,
        out: Out = None,
        seed: Seed = 0,
        iterations: Iterations = None,
        threads: Threads = 1,
        device: DeviceName = "cpu",
        resume: Resume = True,
    ) -> None:
        with _expected_problems():
            from qbench.zoo.recipes import RECIPES

            recipe = RECIPES[name]
            settings = _chosen(recipe.settings, seed, iterations, threads, device)
            model, loss = recipe.prepare(settings, data)
            _train(model, loss, settings, out, resume)

    return command


for _name, _help in TRAININGS.items():
    app.command(_name, help=_help)(_training(_name))


@app.command()
def tokenizer(to: To = Path("zoo-out")) -> None:
    """Write the tokenizer that the text models share, learned on all captions there can be."""
    with _expected_problems():
        from qbench.zoo.caption_tokenizer import write_tokenizer
        from qbench.zoo.garments import every_caption

        write_tokenizer(to / "tokenizer", every_caption())
        typer.echo(f"Wrote {to / 'tokenizer'}")


@app.command()
def reference(
    data: Data = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("zoo-out/fashion-train.safetensors"),
) -> None:
    """Compute the statistics of the real images with the shipped feature network."""
    with _expected_problems():
        from qbench.zoo.fashion_mnist import load_fashion_mnist
        from qbench.zoo.paths import weights_path
        from qbench.zoo.reference import reference_statistics, write_reference

        _one_thread()
        images, extractor = load_fashion_mnist("train", data).images, weights_path("fashion-features")
        found = write_reference(out, reference_statistics(images, extractor), samples=len(images), extractor=extractor)
        typer.echo(f"Wrote {found.path} ({found.samples} images, sha256 {found.sha256})")


@app.command("calibration-images")
def calibration_images(
    data: Data = None,
    to: To = Path("zoo-out"),
) -> None:
    """Write the few real images that ship for methods which calibrate on real images, and their card."""
    with _expected_problems():
        from qbench.zoo.fashion_mnist import load_fashion_mnist
        from qbench.zoo.finish import ship_calibration_images

        _one_thread()
        typer.echo(f"Wrote {ship_calibration_images(load_fashion_mnist('train', data), to)}")


@app.command()
def finish(
    name: Annotated[str, typer.Argument(help=f"What was trained: {', '.join(TRAININGS)}.")],
    run: Annotated[Path, typer.Option("--from", help="Folder of the finished run.")],
    sibling: Annotated[
        Path | None, typer.Option(help="Run of tiny-ddim with another seed, whose figures go on the card.")
    ] = None,
    data: Data = None,
    to: To = Path("zoo-out"),
) -> None:
    """Measure a finished run and write what ships: weights, figures, card, picture.

    What judges others comes first: fashion-features, then the first stages and clip-tiny.
    """
    with _expected_problems():
        from qbench.zoo.finishers import finish_run

        _one_thread()
        typer.echo(f"Wrote {finish_run(name, run, sibling, data, to)}")


def _chosen(
    recipe: "TrainingSettings", seed: int, iterations: int | None, threads: int, device: Literal["cpu", "cuda"]
) -> "TrainingSettings":
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise DataError("This machine has no CUDA device that PyTorch can use; leave out --device cuda.")
    torch.set_num_threads(threads)
    return dataclasses.replace(
        recipe, seed=seed, iterations=iterations or recipe.iterations, threads=threads, device=device
    )


def _train(
    model: "nn.Module", batch_loss: "BatchLoss", settings: "TrainingSettings", out: Path | None, resume: bool
) -> None:
    from qbench.zoo.loop import run_training
    from qbench.zoo.progress import progress

    folder = out or Path("zoo-out") / (settings.name + (f"-seed{settings.seed}" if settings.seed else ""))
    try:
        with progress(settings.name, settings.iterations) as watch:
            weights = run_training(model, batch_loss, settings, folder, resume=resume, watch=watch)
    except KeyboardInterrupt:
        typer.echo(f"Stopped; a checkpoint is in {folder}. The same command goes on from there.", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"Wrote {weights}")


def _one_thread() -> None:
    """The order of sums, and so the last digits of a figure, depends on the number of threads."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def _expected_problems() -> Iterator[None]:
    """Shows a problem that the user can mend as one sentence, exit code 1."""
    try:
        yield
    except QbenchError as problem:
        typer.echo(f"Error: {problem}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
