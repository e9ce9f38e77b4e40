"""Packed checkpoints: integers at b bits a value, with scales and zero points, in one safetensors file."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qbench.errors import DataError
from qbench.quant.grid import AffineGrid, Grid
from qbench.quant.grid_kinds import ChannelScaledGrid, SplitGrid, grid_from_parts
from qbench.quant.layers import QuantLayer
from qbench.quant.model import QuantModel
from qbench.quant.replacement import load_replacement

WEIGHTS_FORMAT = "qbench-packed-weights-3"
REPLACED_FORMAT = "qbench-packed-weights-4"
"""With layers that a method replaced by modules of its own."""
INPUT_GRIDS_FORMAT = "qbench-input-grids-3"
REPLACEMENT = "replacement"
"""Stands in a tensor's name between its layer and its own name in what replaces the layer."""
GRID_TENSORS = ("scale", "zero_point", "factor")
"""Names of all tensors that a grid may have."""


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


@dataclass(frozen=True)
class Configurations:
    """What the tensors of a file do not say.

    Attributes:
        grids: configurations of grids, by the name of the layer or activation.
        replaced: those of modules in the place of layers, by the layer's name.
    """

    grids: Mapping[str, Any]
    replaced: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return what stands in the file."""
        return {"grids": self.grids} | ({"replaced": self.replaced} if self.replaced else {})


def checksum(configurations: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of what a file holds.

    Args:
        configurations: of the grids, or of grids and replaced layers.
        tensors: by name; their types, shapes and bytes count.
    """
    found = hashlib.sha256(json.dumps(configurations, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), *tensor.shape]).encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def save_weights(model: QuantModel, path: Path) -> None:
    """Write a model's whole state: quantized weights packed, everything else as it is.

    Args:
        model: a model whose layers hold their weight grids, folded or not.
        path: the safetensors file.
    """
    state = _state(model)
    tensors = {name: tensor.detach().cpu() for name, tensor in state.items()}
    owners = {id(tensor): name for name, tensor in state.items()}
    grids: dict[str, Any] = {}
    replaced: dict[str, Any] = {}
    for name, layer in model.layers.items():
        if layer.replacement is not None:
            del tensors[owners[id(layer.weight)]]
            tensors |= {
                f"{name}.{REPLACEMENT}.{key}": tensor.detach().cpu().clone()
                for key, tensor in layer.replacement.tensors().items()
            }
            replaced[name] = layer.replacement.config()
        if layer.weight_grid is None:
            continue
        grid = layer.weight_grid
        integers = grid.quantize(layer.rounded.detach()).to("cpu", torch.uint8).numpy()
        del tensors[owners[id(layer.weight)]]
        tensors[f"{name}.packed"] = torch.from_numpy(pack_bits(integers, grid.bits))
        tensors |= _grid_tensors(name, grid)
        grids[name] = grid.config()
    _write(path, REPLACED_FORMAT if replaced else WEIGHTS_FORMAT, Configurations(grids, replaced), tensors)


def load_weights(model: QuantModel, path: Path) -> None:
    """Load what ``save_weights`` wrote: weights come back on their grids, to the bit.

    Raises:
        DataError: the file is damaged, of another format, or of another model.
    """
    configurations, tensors = _read(path, WEIGHTS_FORMAT, REPLACED_FORMAT)
    state = _state(model)
    expected = {name: tensor.shape for name, tensor in state.items()}
    owners = {id(tensor): name for name, tensor in state.items()}
    both = configurations.grids.keys() & configurations.replaced.keys()
    if both:
        raise DataError(f"{path} holds the layer {min(both)!r} twice: with a grid, and replaced")
    for name in (*configurations.grids, *configurations.replaced):
        if name not in model.layers:
            raise DataError(f"{path} holds the layer {name!r}, which this denoiser has not")
        del expected[owners[id(model.layers[name].weight)]]
    for name, config in configurations.replaced.items():
        _replace(model.layers[name], name, config, tensors, path)
    for name, config in configurations.grids.items():
        layer = model.layers[name]
        grid = _pop_grid(tensors, name, config, path, layer.weight.shape).to(layer.weight.device)
        packed = tensors.pop(f"{name}.packed", None)
        count = layer.weight.numel()
        if packed is None or packed.dtype != torch.uint8 or packed.shape != (math.ceil(count * grid.bits / 8),):
            raise DataError(f"{path} holds no integers of {grid.bits} bits for the weight of {name!r}")
        integers = torch.from_numpy(unpack_bits(packed.numpy(), grid.bits, count)).view(layer.weight.shape)
        assert isinstance(grid, AffineGrid | SplitGrid | ChannelScaledGrid)
        layer.adopt(grid, integers)
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise DataError(f"{path} does not fit this denoiser: it holds other tensors")
    for name, tensor in state.items():
        if name in tensors:
            tensor.data.copy_(tensors[name])


def save_input_grids(model: QuantModel, path: Path) -> None:
    """Write the grids of all quantized activations: inputs of layers and operands of attention."""
    grids = {name: tap.grid for name, tap in model.taps.items() if tap.grid is not None}
    tensors: dict[str, Tensor] = {}
    for name, grid in grids.items():
        tensors |= _grid_tensors(name, grid)
    _write(path, INPUT_GRIDS_FORMAT, Configurations({name: grid.config() for name, grid in grids.items()}), tensors)


def input_grid_fault(model: QuantModel, name: str, grid: Grid) -> str | None:
    """Return what keeps an activation's grid from being stored and loaded again, as the end of a sentence, or None.

    Args:
        model: the model.
        name: of the tap.
        grid: its grid.
    """
    if isinstance(grid, SplitGrid) and not (name in model.layers and grid.index < model.layers[name].weight.shape[1]):
        return f"split at {grid.index}, where there is no such channel"
    if isinstance(grid, ChannelScaledGrid) and not (name in model.layers and _fits(grid, model.layers[name])):
        return f"with factors of shape {tuple(grid.factor.shape)}, where one for each input channel is due"
    return grid.fault(None)


def load_input_grids(model: QuantModel, path: Path) -> None:
    """Load what ``save_input_grids`` wrote.

    Raises:
        DataError: the file is damaged, of another format, or of another model.
    """
    configurations, tensors = _read(path, INPUT_GRIDS_FORMAT)
    device = next(iter(model.layers.values())).weight.device
    for name, config in configurations.grids.items():
        if name not in model.taps:
            raise DataError(f"{path} holds the activation {name!r}, which this denoiser has not")
        grid = _pop_grid(tensors, name, config, path, None).to(device)
        fault = input_grid_fault(model, name, grid)
        if fault is not None:
            raise DataError(f"{path} holds a grid of {name!r} {fault}")
        model.taps[name].grid = grid
    if tensors:
        raise DataError(f"{path} holds {next(iter(tensors))!r}, which belongs to no grid")


def _fits(grid: ChannelScaledGrid, layer: QuantLayer) -> bool:
    return grid.fits(layer.groups * layer.weight.shape[1], layer.weight.dim())


def _state(model: QuantModel) -> dict[str, Tensor]:
    """Return every parameter and buffer of the denoiser's own, under its first name only."""
    replacements = [layer.replacement for layer in model.layers.values() if layer.replacement is not None]
    foreign = {id(buffer) for module in replacements for buffer in module.buffers()}
    buffers = {name: buffer for name, buffer in model.module.named_buffers() if id(buffer) not in foreign}
    return {**dict(model.module.named_parameters()), **buffers}


def _grid_tensors(name: str, grid: Grid) -> dict[str, Tensor]:
    # Copies, since layers may share one grid and a file holds no tensor twice.
    tensors = {key: tensor.detach().cpu().clone() for key, tensor in grid.tensors().items()}
    if "zero_point" in tensors:
        tensors["zero_point"] = tensors["zero_point"].to(_integer_type(grid.bits))
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def _integer_type(bits: int) -> torch.dtype:
    return torch.uint8 if bits <= 8 else torch.int32


def _pop_grid(tensors: dict[str, Tensor], name: str, config: Any, path: Path, weight_shape: torch.Size | None) -> Grid:
    parts = {key: tensors.pop(f"{name}.{key}") for key in GRID_TENSORS if f"{name}.{key}" in tensors}
    try:
        if "zero_point" in parts:
            parts["zero_point"] = parts["zero_point"].to(torch.float32)
        grid = grid_from_parts(config, parts)
        fault = grid.fault(weight_shape)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} holds no grid of {name!r} that fits this denoiser: {error}") from error
    if fault is not None:
        raise DataError(f"{path} holds a grid of {name!r} {fault}")
    return grid


def _replace(layer: QuantLayer, name: str, config: Any, tensors: dict[str, Tensor], path: Path) -> None:
    prefix = f"{name}.{REPLACEMENT}."
    parts = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
    try:
        layer.replace(load_replacement(config, parts, layer))
    except DataError as error:
        raise DataError(f"{path}: the layer {name!r}: {error}") from error


def _write(path: Path, kind: str, configurations: Configurations, tensors: dict[str, Tensor]) -> None:
    # One key only: safetensors writes several in random order, and the same model is to give the same bytes.
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = {"format": kind, **configurations.plain(), "checksum": _checksum(configurations, tensors)}
    save_file(tensors, path, metadata={"qbench": json.dumps(header, sort_keys=True)})


def _checksum(configurations: Configurations, tensors: Mapping[str, Tensor]) -> str:
    return checksum(configurations.plain() if configurations.replaced else configurations.grids, tensors)


def _read(path: Path, *kinds: str) -> tuple[Configurations, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("qbench", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as a packed checkpoint ({error})") from error
    if not isinstance(header, dict) or header.get("format") not in kinds:
        raise DataError(f"{path} is not a file of the format {kinds[0]}")
    grids: Any = header.get("grids")
    replaced: Any = header.get("replaced", {})
    for found in (grids, replaced):
        if not isinstance(found, dict) or not all(isinstance(config, dict) for config in found.values()):
            raise DataError(f"{path} does not say which grids it holds")
    configurations = Configurations(grids, replaced)
    if header.get("checksum") != _checksum(configurations, tensors):
        raise DataError(f"{path} is damaged or was altered: it does not hold what its checksum was taken of")
    return configurations, tensors
