"""Packed checkpoints: integers at b bits a value, with scales and zero points, in one safetensors file."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qbench.errors import DataError
from qbench.quant.grid import AffineGrid
from qbench.quant.layers import QuantLayer
from qbench.quant.model import QuantModel

WEIGHTS_FORMAT = "qbench-packed-weights-1"
INPUT_GRIDS_FORMAT = "qbench-input-grids-1"


def pack_bits(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack integers of ``bits`` bits densely into bytes, most significant bit first.

    Args:
        integers: any shape, each below 2**bits.
        bits: 1 to 8.
    """
    planes = np.unpackbits(integers.reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(planes.reshape(-1))


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Return the first ``count`` integers that ``pack_bits`` packed, in one dimension."""
    planes = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    padded = np.pad(planes, ((0, 0), (8 - bits, 0)))
    return np.packbits(padded, axis=1).reshape(-1)


def save_weights(model: QuantModel, path: Path) -> None:
    """Write a model's whole state: quantized weights packed, everything else as it is.

    Args:
        model: a model whose layers hold their weight grids, folded or not.
        path: the safetensors file.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in _state(model).items()}
    bits: dict[str, int] = {}
    for name, layer in model.layers.items():
        if layer.weight_grid is None:
            continue
        grid = layer.weight_grid
        integers = grid.quantize(layer.weight.detach()).to("cpu", torch.uint8).numpy()
        del tensors[f"{name}.weight"]
        tensors[f"{name}.packed"] = torch.from_numpy(pack_bits(integers, grid.bits))
        tensors |= _grid_tensors(name, grid)
        bits[name] = grid.bits
    _write(path, WEIGHTS_FORMAT, bits, tensors)


def load_weights(model: QuantModel, path: Path) -> None:
    """Load what ``save_weights`` wrote: weights come back folded onto their grids, to the bit.

    Raises:
        DataError: the file is damaged, of another format, or of another model.
    """
    bits, tensors = _read(path, WEIGHTS_FORMAT)
    expected = {name: tensor.shape for name, tensor in _state(model).items()}
    for name, width in bits.items():
        layer = _layer(model, name, path)
        del expected[f"{name}.weight"]
        per_channel = (layer.weight.shape[0], *(1,) * (layer.weight.dim() - 1))
        grid = _pop_grid(tensors, name, width, path, (torch.Size(), torch.Size(per_channel)))
        packed = tensors.pop(f"{name}.packed", None)
        count = layer.weight.numel()
        if packed is None or packed.dtype != torch.uint8 or packed.shape != (math.ceil(count * width / 8),):
            raise DataError(f"{path} holds no integers of {width} bits for the weight of {name!r}")
        integers = torch.from_numpy(unpack_bits(packed.numpy(), width, count)).view(layer.weight.shape)
        layer.adopt(grid.to(layer.weight.device), integers)
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise DataError(f"{path} does not fit this denoiser: it holds other tensors")
    for name, tensor in _state(model).items():
        if name in tensors:
            tensor.data.copy_(tensors[name])


def save_input_grids(model: QuantModel, path: Path) -> None:
    """Write the grids of all quantized inputs."""
    grids = {name: layer.input_grid for name, layer in model.layers.items() if layer.input_grid is not None}
    tensors: dict[str, Tensor] = {}
    for name, grid in grids.items():
        tensors |= _grid_tensors(name, grid)
    _write(path, INPUT_GRIDS_FORMAT, {name: grid.bits for name, grid in grids.items()}, tensors)


def load_input_grids(model: QuantModel, path: Path) -> None:
    """Load what ``save_input_grids`` wrote.

    Raises:
        DataError: the file is damaged, of another format, or of another model.
    """
    bits, tensors = _read(path, INPUT_GRIDS_FORMAT)
    for name, width in bits.items():
        layer = _layer(model, name, path)
        layer.input_grid = _pop_grid(tensors, name, width, path, None).to(layer.weight.device)
    if tensors:
        raise DataError(f"{path} holds {next(iter(tensors))!r}, which belongs to no grid")


def _state(model: QuantModel) -> dict[str, Tensor]:
    """Return every parameter and buffer under its first name only."""
    return {**dict(model.module.named_parameters()), **dict(model.module.named_buffers())}


def _layer(model: QuantModel, name: str, path: Path) -> QuantLayer:
    if name not in model.layers:
        raise DataError(f"{path} holds the layer {name!r}, which this denoiser has not")
    return model.layers[name]


def _grid_tensors(name: str, grid: AffineGrid) -> dict[str, Tensor]:
    # Copies, since layers may share one grid and a file holds no tensor twice.
    scale, zero_point = grid.scale.detach().cpu().clone(), grid.zero_point.detach().cpu().to(torch.uint8)
    return {f"{name}.scale": scale, f"{name}.zero_point": zero_point}


def _pop_grid(
    tensors: dict[str, Tensor], name: str, bits: int, path: Path, shapes: tuple[torch.Size, ...] | None
) -> AffineGrid:
    scale, zero_point = tensors.pop(f"{name}.scale", None), tensors.pop(f"{name}.zero_point", None)
    fits = scale is not None and (shapes is None or scale.shape in shapes)
    if scale is None or zero_point is None or not fits or zero_point.shape != scale.shape:
        raise DataError(f"{path} holds no grid of the layer {name!r} that fits this denoiser")
    return AffineGrid(bits, scale, zero_point.to(torch.float32))


def _write(path: Path, kind: str, bits: Mapping[str, int], tensors: dict[str, Tensor]) -> None:
    # One key only: safetensors writes several in random order, and the same model is to give the same bytes.
    header = json.dumps({"format": kind, "bits": bits}, sort_keys=True)
    save_file(tensors, path, metadata={"qbench": header})


def _read(path: Path, kind: str) -> tuple[dict[str, int], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("qbench", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as a packed checkpoint ({error})") from error
    if not isinstance(header, dict) or header.get("format") != kind:
        raise DataError(f"{path} is not a file of the format {kind}")
    bits = header.get("bits")
    if not isinstance(bits, dict) or not all(value in range(1, 9) and value is not True for value in bits.values()):
        raise DataError(f"{path} does not say how many bits its layers have")
    return bits, tensors
