"""An exported cell as a pipeline of diffusers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, UNet2DConditionModel, UNet2DModel
from numpy.typing import NDArray
from PIL import Image

from qbench.diffusion.codecs import DiffusersFirstStage, to_uint8
from qbench.diffusion.noise import Purpose
from qbench.diffusion.samplers import NoiseSource, StepContext, make_sampler, sample
from qbench.errors import StageError
from qbench.export.folder import written_aside
from qbench.export.schema import FILE, ExportInfo, read_info
from qbench.quant.attention import TappedProcessor, is_attention
from qbench.stages.denoiser import Denoiser
from qbench.stages.sample import SHARD_SIZE
from qbench.stages.side_by_side import side_by_side
from qbench.stages.stage import DEFAULT_BATCH_SIZE
from qbench.workloads.text_conditioning import CLIPConditioning

DENOISERS = (UNet2DModel, UNet2DConditionModel)
OutputType = Literal["pil", "np", "pt"]


@dataclass(frozen=True)
class Exported:
    """What an exported folder holds, loaded.

    Attributes:
        folder: where it lies.
        info: what it says of itself.
        denoiser: frozen for sampling.
    """

    folder: Path
    info: ExportInfo
    denoiser: Denoiser


class QuantizedPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A cell's model, sampled as the cell was; made by ``qbench.load_quantized``.

    ``unet`` computes in float32 with quantized values: what its arithmetic is worth is simulated, and its weights take
    the memory of floats once they are loaded.

    Args:
        unet: the quantized denoiser.
        vae: the first stage; None where the denoiser works on pixels.
        text_encoder: None where it samples without captions.
        tokenizer: likewise.
        exported: the folder that they are of.
    """

    _optional_components = ["vae", "text_encoder", "tokenizer"]  # noqa: RUF012 (as diffusers declares it)

    def __init__(
        self,
        unet: Any,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        exported: Exported | None = None,
    ) -> None:
        super().__init__()
        if exported is None:
            raise ValueError("a QuantizedPipeline is made from the folder of an exported cell: qbench.load_quantized")
        self.register_modules(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer)
        self._exported = exported

    @classmethod
    def of(cls, exported: Exported) -> QuantizedPipeline:
        """Return the pipeline of an exported cell."""
        return cls(**_components(exported.denoiser), exported=exported)

    @property
    def info(self) -> ExportInfo:
        """What the folder says of the cell: bits, sampler, figures."""
        return self._exported.info

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_images: int | None = None,
        indices: Sequence[int] | None = None,
        seed: int | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        output_type: OutputType = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Sample images with the cell's sampler and steps.

        Noise has addresses: image ``i`` of a seed is the same whichever images are asked for with it. So
        ``indices=range(8)`` are the first images of the cell, to the byte where device, threads and batches are the
        cell's; elsewhere a few roundings flip.

        Args:
            prompt: the caption of each image, or one for all; only where the model reads captions.
            num_images: how many, from index 0 on; 1, or as many as there are prompts, by default.
            indices: which images, each 0 or more; in place of ``num_images``.
            seed: of the noise, 0 to 2**64 - 1; the cell's by default.
            batch_size: images at a time; those in a row are cut into batches as the cell's are.
            output_type: ``pil`` for PIL images, ``np`` for float32 [images, height, width, channels] and ``pt`` for
                float32 [images, channels, height, width], both 0 to 1 and rounded to 256 levels.
            return_dict: whether to return an ``ImagePipelineOutput``; a tuple otherwise.

        Returns:
            ``images``.

        Raises:
            ValueError: an argument is none that it can be, or there are more or fewer prompts than images.
            StageError: an image is not finite, or a part was replaced, cast to another type or given other attention.
        """
        if output_type not in get_args(OutputType):
            raise ValueError(f"output_type is one of {', '.join(get_args(OutputType))}, not {output_type!r}")
        chosen = _indices(prompt, num_images, indices)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is a number of images, 1 or more, not {batch_size!r}")
        seed = self.info.cell.seed if seed is None else _natural(seed, "seed")
        images = self._sampled(chosen, self._prompts(prompt, len(chosen)), seed, batch_size)
        shown = _as(output_type, images)
        return ImagePipelineOutput(images=shown) if return_dict else (shown,)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Copy the exported folder, packed weights and all, to a new place.

        Args:
            save_directory: a folder that does not exist or is empty.
            options: of diffusers; none of them has a meaning here.

        Raises:
            ValueError: there are options.
            DataError: the folder that the pipeline was loaded from is gone or was altered.
            ExportError: there is something already, or it cannot be written.
        """
        if options:
            raise ValueError(f"the exported folder is copied as it is: {', '.join(options)} cannot be chosen")
        source = self._exported.folder
        names = [*read_info(source).files, FILE, "README.md"]
        with written_aside(Path(save_directory)) as folder:
            for name in names:
                if (source / name).is_file():
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(source / name, folder / name)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> QuantizedPipeline:
        """Load an exported folder; see ``qbench.load_quantized``.

        Raises:
            ValueError: there are options of diffusers, none of which has a meaning here.
            DataError: as for ``qbench.load_quantized``.
        """
        from qbench.export.load import load_quantized

        if options:
            raise ValueError(f"qbench.load_quantized takes no {', '.join(options)}")
        return load_quantized(pretrained_model_name_or_path)

    def _prompts(self, prompt: str | Sequence[str] | None, count: int) -> list[str] | None:
        if self.text_encoder is None:
            if prompt is not None:
                raise ValueError("this model samples without captions: leave prompt out")
            return None
        if prompt is None:
            raise ValueError("this model samples what captions say: give a prompt, or one for each image")
        prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if not all(isinstance(each, str) for each in prompts):
            raise ValueError("prompt is a caption, or a list of captions")
        if len(prompts) != count:
            raise ValueError(f"there are {len(prompts)} prompts for {count} images: give one for each, or one for all")
        return prompts

    def _placed(self) -> Denoiser:
        """Return the denoiser with its grids where its weights are now; ``.to`` moves modules only."""
        denoiser = self._exported.denoiser
        for name, loaded in _components(denoiser).items():
            fault = _fault(loaded, getattr(self, name))
            if fault is not None:
                raise StageError(f"the {name} {fault}, so the images would not be the cell's: load the folder again")
        device = self.unet.device
        for tap in denoiser.model.taps.values():
            if tap.grid is not None:
                tap.grid = tap.grid.to(device)
        return replace(denoiser, device=device)

    def _sampled(self, indices: Sequence[int], prompts: list[str] | None, seed: int, size: int) -> NDArray[np.uint8]:
        denoiser = self._placed()
        sampler = make_sampler(self.info.schedule, self.info.sampler)
        images = np.empty((len(indices), *self.info.image_shape), np.uint8)
        with self.progress_bar(total=len(indices) * len(sampler)) as bar:

            @torch.inference_mode()
            def run(batch: range, go_on: Callable[[], None]) -> None:
                def observe(_: StepContext, x: torch.Tensor) -> None:
                    go_on()
                    bar.update(len(x))

                rows = [indices[row] for row in batch]
                noise = NoiseSource(self.info.latent_shape, seed, Purpose.EVALUATION, rows)
                denoise = denoiser.conditioned(lambda: [] if prompts is None else prompts[batch.start : batch.stop])
                latents = sample(denoise, sampler, noise, denoiser.device, observe, correction=denoiser.correction)
                decoded = denoiser.codec.decode(latents)
                if not bool(decoded.isfinite().all()):
                    raise StageError(f"one of the images {rows[0]} to {rows[-1]} is not finite")
                images[batch.start : batch.stop] = to_uint8(decoded).cpu().numpy()

            for shard in _shards(indices, size):
                side_by_side(denoiser.device, shard, run)
        return images


def _components(denoiser: Denoiser) -> dict[str, Any]:
    codec, text = denoiser.codec, denoiser.conditioning
    return {
        "unet": denoiser.model.module,
        "vae": codec.model if isinstance(codec, DiffusersFirstStage) else None,
        "text_encoder": text.model if isinstance(text, CLIPConditioning) else None,
        "tokenizer": text.tokenizer if isinstance(text, CLIPConditioning) else None,
    }


def _fault(loaded: Any, part: Any) -> str | None:
    """Return what was done to a part that diffusers lets anybody do, as the end of a sentence, or None."""
    if part is not loaded:
        return "was replaced"
    if not isinstance(part, torch.nn.Module):
        return None
    if next(part.parameters()).dtype != torch.float32:
        return f"was cast to {next(part.parameters()).dtype}"
    if isinstance(part, DENOISERS):
        attentions = [module for module in part.modules() if is_attention(module)]
        if not all(isinstance(each.processor, TappedProcessor) for each in attentions):
            return "got other attention processors"
    return None


def _shards(indices: Sequence[int], size: int) -> Iterator[list[range]]:
    """Yield batches as ranges of positions: those of a shard together, as the stage ``sample`` cuts them."""
    if any(after - before != 1 for before, after in pairwise(indices)):
        yield [range(start, min(start + size, len(indices))) for start in range(0, len(indices), size)]
        return
    begins = [place for place, index in enumerate(indices) if place == 0 or index % SHARD_SIZE % size == 0]
    cut = [range(start, stop) for start, stop in pairwise([*begins, len(indices)])]
    for _, shard in groupby(cut, lambda batch: indices[batch.start] // SHARD_SIZE):
        yield list(shard)


def _indices(
    prompt: str | Sequence[str] | None, num_images: int | None, indices: Sequence[int] | None
) -> Sequence[int]:
    if indices is None:
        count = num_images
        if count is None:
            count = 1 if prompt is None or isinstance(prompt, str) else len(prompt)
        indices = range(_natural(count, "num_images"))
    elif num_images is not None:
        raise ValueError("num_images and indices both say which images: give one of them")
    chosen = [_natural(index, "an index") for index in indices]
    if not chosen:
        raise ValueError("no image is asked for")
    return chosen


def _natural(number: Any, what: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < 2**64:
        raise ValueError(f"{what} is a whole number from 0 to 2**64 - 1, not {number!r}")
    return int(number)


def _as(output_type: OutputType, images: NDArray[np.uint8]) -> Any:
    if output_type == "pt":
        return torch.from_numpy(images).float() / 255
    last = images.transpose(0, 2, 3, 1)
    if output_type == "np":
        return last.astype(np.float32) / np.float32(255)
    return [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in last]
