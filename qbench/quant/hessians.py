"""Second-order information on layers: the Hessian of a layer's squared output error by its weight."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from qbench.bits import FULL_PRECISION_BITS
from qbench.errors import StageError
from qbench.quant.data import CalibrationData
from qbench.quant.layers import QuantLayer
from qbench.quant.model import QuantModel
from qbench.quant.running_state import slices
from qbench.quant.units import Granularity, Unit, Walk

COLUMN_VALUES = 2**26
"""How many values of an image's windows are laid out at a time: each pixel is in as many windows as a kernel has."""
_LINEAR = 2
"""Axes of a linear layer's weight."""


class InputHessian:
    """``2 X X^T`` over all of a layer's inputs X, of which each column is what one output is computed from.

    It is the Hessian of ``||W X - Q X||^2`` by each row of Q. A convolution's columns are its windows, those of each
    group apart.

    Source: Optimal Brain Compression (Frantar et al. 2022, arXiv 2208.11580), section 4; GPTQ (arXiv 2210.17323),
    equation 1.

    Args:
        name: of the layer, for messages.
        layer: whose tap it may observe.

    Attributes:
        value: float32 [groups, columns, columns], columns being the entries of an output channel's weight in their
            own order; on the layer's device.

    Raises:
        StageError: the layer is neither linear nor a convolution of images with padding in numbers.
    """

    def __init__(self, name: str, layer: QuantLayer) -> None:
        if layer.geometry is None and layer.weight.dim() != _LINEAR:
            raise StageError(
                f"the layer {name!r} is neither linear nor a convolution of images with padding in numbers, so the "
                "Hessian of its output error cannot be had: use a method that does without"
            )
        self._layer = layer
        columns = layer.weight[0].numel()
        self.value = torch.zeros(layer.groups, columns, columns, device=layer.weight.device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> None:
        """Take in a batch of the layer's inputs."""
        if self._layer.geometry is None:
            self._add(x.flatten(0, -2).T.unsqueeze(0))
            return
        size = max(1, COLUMN_VALUES // (x[0].numel() * self._layer.weight[0, 0].numel()))
        for part in torch.split(x, size):
            self._add(self._windows(part))

    def _windows(self, x: Tensor) -> Tensor:
        """Return [groups, columns, windows of all images]."""
        geometry = self._layer.geometry
        assert geometry is not None
        kernel = tuple(self._layer.weight.shape[2:])
        found = functional.unfold(x, kernel, geometry.dilation, geometry.padding, geometry.stride)
        return found.view(len(x), geometry.groups, -1, found.shape[2]).permute(1, 2, 0, 3).flatten(2)

    def _add(self, columns: Tensor) -> None:
        columns = columns.float()
        self.value.baddbmm_(columns, columns.transpose(1, 2), alpha=2)


def input_hessians(model: QuantModel, data: CalibrationData, granularity: Granularity) -> Iterator[tuple[str, Tensor]]:
    """Go through the layers whose weights have low bits, in execution order, and give each one's input Hessian.

    Inputs come from the network as it is quantized so far: whoever puts a grid into a layer before taking the next one
    changes what layers behind see. Within a unit they see what was there before its first layer was given.

    Args:
        model: the model.
        data: what passes through it.
        granularity: whether the Hessians of a ``block`` are taken in one pass, or each ``layer``'s in its own. The
            Hessians of one unit are held at once.

    Yields:
        A layer's name and ``InputHessian.value``. Layers that are not called do not come.

    Raises:
        StageError: the denoiser's blocks are not known, an input is not finite, or a layer is of a kind that it cannot
            be had of.
    """
    walk = Walk(model, data, granularity, "quantized")
    share = 1 / max(len(walk.names()), 1)
    for unit in walk:
        found = hessians_of(model, unit, data)
        del unit  # what it holds would stay while the next unit is collected
        while found:
            name = next(iter(found))
            value = found.pop(name).value
            if not bool(value.isfinite().all()):
                raise StageError(f"the activation {name!r} holds NaN or infinity, or is too large to be squared")
            yield name, value
        data.report(share)


@torch.no_grad()
def hessians_of(model: QuantModel, unit: Unit, data: CalibrationData) -> dict[str, InputHessian]:
    """Return the Hessians of a unit's layers whose weights have low bits, by name, from one pass of all rows."""
    found = {
        name: InputHessian(name, layer)
        for name, layer in unit.layers.items()
        if layer.bits.weights < FULL_PRECISION_BITS
    }

    def observer(name: str) -> Callable[[Tensor], None]:
        return found.get(name, lambda x: None)

    if found:
        with model.observing(observer):
            for rows in slices(len(data), data.batch_size):
                unit.forward(torch.arange(rows.start, rows.stop, device=data.x.device))
    return found


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Return the upper Cholesky factor U of inverse Hessians: ``U^T U`` is the inverse of ``hessian + damp I``.

    Rows and columns that are all 0, of inputs that are, stay apart from the rest.

    Args:
        hessian: [groups, columns, columns].
        damping: what is added to the diagonal, as a share of the mean of its entries that are not 0.

    Returns:
        float64 [groups, columns, columns], on the device of the Hessian or, where that has no such numbers, on the CPU.

    Raises:
        ValueError: there is no inverse.
    """
    precise = hessian.to("cpu" if hessian.device.type == "mps" else hessian.device, torch.float64, copy=True)
    diagonal = precise.diagonal(dim1=1, dim2=2)
    is_dead = diagonal == 0
    mean = diagonal.sum(1, keepdim=True) / (~is_dead).sum(1, keepdim=True).clamp(min=1)
    diagonal += damping * mean + is_dead * torch.where(mean > 0, mean, 1.0)
    # With rows and columns backwards the lower factor L of H is an upper one R, H = R R^T, and U is R's inverse.
    lower, failed = torch.linalg.cholesky_ex(precise.flip(1, 2))
    if bool(failed.any()):
        raise ValueError("the Hessian of its output error has no inverse: use more calibration data or more damping")
    del precise, diagonal  # a few gigabytes in large models
    upper = lower.flip(1, 2)
    del lower
    inverse: Tensor = torch.linalg.solve_triangular(upper, torch.eye(upper.shape[1]).to(upper), upper=True)
    return inverse
