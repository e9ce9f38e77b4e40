"""``qbench.load_quantized``."""

from __future__ import annotations

from pathlib import Path

from qbench.devices import torch_device
from qbench.export.parts import load_parts
from qbench.export.pipeline import Exported, QuantizedPipeline
from qbench.export.schema import read_info


def load_exported(folder: Path) -> Exported:
    """Load an exported folder on the CPU.

    Raises:
        DataError: as for ``load_quantized``.
    """
    info = read_info(folder)
    return Exported(folder.resolve(), info, load_parts(folder, info))


def load_quantized(path: str | Path, device: str = "auto") -> QuantizedPipeline:
    """Load what ``qbench export`` wrote as a pipeline of diffusers that samples the cell's images.

    Every file is compared with the digest that the folder vouches for; nothing is unpickled and no network is used.
    The text encoder stays on the CPU, as it does when qbench samples; ``.to`` moves it with the rest.

    Args:
        path: the folder, wherever it was moved to.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        DataError: the folder is no exported one or of another version, or something in it is missing, damaged, altered
            or added.
        QbenchError: this machine has no such device.
    """
    place = torch_device(device)
    pipeline = QuantizedPipeline.of(load_exported(Path(path)))
    pipeline.unet.to(place)
    if pipeline.vae is not None:
        pipeline.vae.to(place)
    return pipeline
