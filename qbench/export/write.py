"""From a cell to a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from qbench.diffusion.conditioning import UNCONDITIONAL
from qbench.diffusion.noise import Purpose
from qbench.diffusion.samplers import NoiseSource, StepContext, make_sampler
from qbench.environment import versions
from qbench.errors import ExportError, QbenchError
from qbench.export.card import card
from qbench.export.cell import FoundCell
from qbench.export.folder import check_is_free, written_aside
from qbench.export.load import load_exported
from qbench.export.parts import Described, write_parts
from qbench.export.schema import CARD, FILE, PIPELINE, UNET, CellInfo, ExportInfo, write_info
from qbench.identity import file_digest
from qbench.quant.packing import save_weights
from qbench.stages.denoiser import CORRECTION, INPUT_GRIDS, WEIGHTS, Denoiser, load_denoiser

CLASSES = {"unet": "diffusers", "vae": "diffusers", "text_encoder": "transformers", "tokenizer": "transformers"}


@dataclass(frozen=True)
class Written:
    """An exported folder.

    Attributes:
        path: where it lies.
        weights_bytes: of the packed denoiser.
        total_bytes: of the whole folder.
        files: SHA-256 of every file that is loaded.
    """

    path: Path
    weights_bytes: int
    total_bytes: int
    files: Mapping[str, str]


def export_cell(found: FoundCell, target: Path) -> Written:
    """Write a cell as a folder that ``qbench.load_quantized`` loads.

    The folder is loaded before it gets its name, and its denoiser, first stage and text encoder must put out what the
    cell's do, to the bit.

    Args:
        found: the cell.
        target: a folder that does not exist or is empty.

    Raises:
        ExportError: the cell's model is of a class that no folder of diffusers holds, or would compute something else
            when it is loaded again; or the folder cannot be written.
    """
    check_is_free(target)
    workload = found.cell.workload
    denoiser = load_denoiser(workload, torch.device("cpu"), found.artefacts)
    with written_aside(target) as folder:
        try:
            expected = _write_all(found, denoiser, folder)
        except SafetensorError as error:
            raise ExportError(f"{target} cannot be written ({error}): make room, or name another folder") from error
        del denoiser  # large models are not to be in memory twice
        try:
            loaded = load_exported(folder)
            outputs = _outputs(loaded.denoiser, found)
        except QbenchError as error:
            raise ExportError(f"the workload {workload.name!r} cannot be exported: {error}") from error
        if not _are_equal(expected, outputs):
            raise ExportError(
                f"the workload {workload.name!r} cannot be exported: its model computes something that neither a "
                "folder of diffusers nor qbench.json expresses"
            )
        weights = (folder / UNET / WEIGHTS).stat().st_size
        total = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    return Written(target, weights, total, loaded.info.files)


def _write_all(found: FoundCell, denoiser: Denoiser, folder: Path) -> list[Tensor]:
    """Write everything; return what the model that is written puts out."""
    (folder / UNET).mkdir()
    if "weights" in found.artefacts:
        shutil.copyfile(found.artefacts["weights"].file(WEIGHTS), folder / UNET / WEIGHTS)
    else:  # activations alone are quantized
        save_weights(denoiser.model, folder / UNET / WEIGHTS)
    if "activations" in found.artefacts:
        shutil.copyfile(found.artefacts["activations"].file(INPUT_GRIDS), folder / UNET / INPUT_GRIDS)
    if "correction" in found.artefacts:
        shutil.copyfile(found.artefacts["correction"].file(CORRECTION), folder / UNET / CORRECTION)
    described = write_parts(denoiser, found.cell.workload.name, folder)
    denoiser.model.freeze()
    _write_index(denoiser, folder)
    files = {
        each.relative_to(folder).as_posix(): file_digest(each) for each in sorted(folder.rglob("*")) if each.is_file()
    }
    info = _info(found, described, files)
    _write_json(folder / FILE, write_info(info))
    text = card(info, found.record, (folder / UNET / WEIGHTS).stat().st_size)
    (folder / CARD).write_text(text, encoding="utf-8")
    return _outputs(denoiser, found)


def _write_index(denoiser: Denoiser, folder: Path) -> None:
    names = {
        "unet": type(denoiser.model.module).__name__,
        "vae": type(getattr(denoiser.codec, "model", None)).__name__,
        "text_encoder": type(getattr(denoiser.conditioning, "model", None)).__name__,
        "tokenizer": type(getattr(denoiser.conditioning, "tokenizer", None)).__name__,
    }
    parts = {
        part: [library, names[part]] if (folder / part).is_dir() else [None, None] for part, library in CLASSES.items()
    }
    _write_json(
        folder / PIPELINE,
        {"_class_name": "QuantizedPipeline", "_diffusers_version": versions()["diffusers"], **parts},
    )


def _info(found: FoundCell, described: Described, files: Mapping[str, str]) -> ExportInfo:
    record, cell = found.record, found.cell
    workload, sampler = cell.workload, cell.workload.sampler
    assert cell.method is not None
    return ExportInfo(
        cell=CellInfo(
            suite=record.suite.name,
            workload=workload.entry.name,
            row=record.workload,
            method=cell.method.name,
            label=record.label,
            bits=record.bits,
            boundary_bits=record.boundary_bits,
            seed=record.seed,
            samples=record.samples,
            digest=record.digest,
        ),
        sampler=sampler,
        schedule=workload.schedule,
        latent_shape=tuple(workload.latent_shape),
        image_shape=workload.image_shape,
        codec=described.codec,
        heads=dict(described.heads),
        captions_at_once=described.captions_at_once,
        figures={name: figure.model_copy(update={"without": []}) for name, figure in record.figures.items()},
        environment=record.environment,
        versions=versions(),
        files=dict(files),
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode()
def _outputs(denoiser: Denoiser, found: FoundCell) -> list[Tensor]:
    """Return what a denoiser estimates at the first and the last step, what it reads of captions, and an image."""
    workload = found.cell.workload
    sampler = make_sampler(workload.schedule, workload.sampler)
    noise = NoiseSource(workload.latent_shape, found.cell.seed, Purpose.EVALUATION, range(2))
    x = noise.at(-1, denoiser.device)
    captions: Sequence[str] = workload.captions(range(2)) if workload.has_captions else ()
    denoise = denoiser.conditioned(lambda: captions)
    steps = (0, len(sampler) - 1)
    found_ = [denoise(x, StepContext(index, int(sampler.timesteps[index]))) for index in steps]
    if denoiser.conditioning is not None:
        found_ += [tensor for _, tensor in sorted(denoiser.conditioning([*captions, UNCONDITIONAL]).items())]
    return [*found_, denoiser.codec.decode(x[:1])]


def _are_equal(expected: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    return len(expected) == len(outputs) and all(map(torch.equal, expected, outputs))
