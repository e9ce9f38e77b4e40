"""Packed checkpoints: integers at b bits a value, with scales and zero points, in one safetensors file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qbench.errors import DataError
from qbench.quant.grid import AffineGrid
from qbench.quant.model import QuantModel

FORMAT = "qbench-packed-1"


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
    layout: dict[str, Any] = {}
    for name, layer in model.layers.items():
        if layer.weight_grid is None:
            continue
        grid = layer.weight_grid
        integers = grid.quantize(layer.weight.detach()).to("cpu", torch.uint8).numpy()
        del tensors[f"{name}.weight"]
        tensors[f"{name}.packed"] = torch.from_numpy(pack_bits(integers, grid.bits))
        tensors[f"{name}.scale"] = grid.scale.cpu()
        tensors[f"{name}.zero_point"] = grid.zero_point.cpu().to(torch.uint8)
        layout[name] = {"bits": grid.bits, "shape": list(layer.weight.shape)}
    save_file(tensors, path, metadata={"format": FORMAT, "layers": json.dumps(layout, sort_keys=True)})


def load_weights(model: QuantModel, path: Path) -> None:
    """Load what ``save_weights`` wrote: weights come back folded onto their grids, to the bit.

    Raises:
        DataError: the file is damaged, of another format, or of another model.
    """
    layout, tensors = _read(path)
    state = _state(model)
    for name, entry in layout.items():
        layer = model.layers.get(name)
        if layer is None or list(layer.weight.shape) != entry["shape"]:
            raise DataError(f"{path} holds the layer {name!r}, which this denoiser has not or has in another shape")
        scale, zero_point = tensors.pop(f"{name}.scale"), tensors.pop(f"{name}.zero_point").to(torch.float32)
        integers = unpack_bits(tensors.pop(f"{name}.packed").numpy(), entry["bits"], layer.weight.numel())
        grid = AffineGrid(entry["bits"], scale, zero_point).to(layer.weight.device)
        layer.adopt(grid, torch.from_numpy(integers).view(layer.weight.shape))
        del state[f"{name}.weight"]
    if tensors.keys() != state.keys():
        raise DataError(f"{path} does not fit this denoiser: it holds other tensors")
    for name, tensor in tensors.items():
        state[name].data.copy_(tensor)


def save_input_grids(model: QuantModel, path: Path) -> None:
    """Write the grids of all quantized inputs."""
    tensors: dict[str, Tensor] = {}
    bits: dict[str, int] = {}
    for name, layer in model.layers.items():
        if layer.input_grid is not None:
            bits[name] = layer.input_grid.bits
            tensors[f"{name}.scale"] = layer.input_grid.scale.cpu()
            tensors[f"{name}.zero_point"] = layer.input_grid.zero_point.cpu()
    save_file(tensors, path, metadata={"format": FORMAT, "layers": json.dumps(bits, sort_keys=True)})


def load_input_grids(model: QuantModel, path: Path) -> None:
    """Load what ``save_input_grids`` wrote.

    Raises:
        DataError: the file is damaged, of another format, or of another model.
    """
    layout, tensors = _read(path)
    for name, bits in layout.items():
        layer = model.layers.get(name)
        if layer is None:
            raise DataError(f"{path} holds the layer {name!r}, which this denoiser has not")
        grid = AffineGrid(bits, tensors[f"{name}.scale"], tensors[f"{name}.zero_point"])
        layer.input_grid = grid.to(layer.weight.device)


def _state(model: QuantModel) -> dict[str, Tensor]:
    """Return every parameter and buffer under its first name only."""
    return {**dict(model.module.named_parameters()), **dict(model.module.named_buffers())}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as a packed checkpoint ({error})") from error
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} is not a packed checkpoint of format {FORMAT}")
    return json.loads(metadata["layers"]), tensors
