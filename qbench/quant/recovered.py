"""Grids found again in weights that somebody else has rounded."""

import torch
from torch import Tensor

from qbench.quant.grid import AffineGrid

TOLERANCE = 1e-4
"""How far a weight may lie from its grid point, in steps: other programs multiply in another order or in halves."""


def recovered_grid(weight: Tensor, bits: int) -> AffineGrid | None:
    """Return the grid for each output channel on which a weight lies, or None if it lies on none of so many bits.

    The step of a channel is the smallest distance between two of its values, refined over their whole range; every
    value has to be a whole number of steps from the lowest, at most 2**bits - 1 of them. Zero has to be on the grid
    too, since its zero point is an integer.

    Args:
        weight: [out, ...].
        bits: of the grid, 2 to 8.
    """
    scales, zero_points = [], []
    for channel in weight.detach().double().flatten(1):
        found = _of_channel(channel, 2**bits - 1)
        if found is None:
            return None
        scales.append(found[0])
        zero_points.append(found[1])
    shape = (-1, *[1] * (weight.dim() - 1))
    scale, zero_point = (torch.tensor(each, dtype=weight.dtype).view(shape) for each in (scales, zero_points))
    return AffineGrid(bits, scale.to(weight.device), zero_point.to(weight.device))


def _of_channel(channel: Tensor, steps: int) -> tuple[float, float] | None:
    values = torch.cat([channel, channel.new_zeros(1)]).sort().values
    span = float(values[-1] - values[0])
    if span == 0:
        return 1.0, 0.0
    gaps = values.diff()
    # Equal values that were computed differently are no step apart.
    gaps = gaps[gaps > span / steps * 0.5]
    count = round(span / float(gaps.min())) if len(gaps) else steps + 1
    if count > steps:
        return None
    step = span / count
    positions = (values - values[0]) / step
    if float((positions - positions.round()).abs().max()) > TOLERANCE:
        return None
    return step, round(-float(values[0]) / step)
