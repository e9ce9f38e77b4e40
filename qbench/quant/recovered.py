"""Grids found again in weights that somebody else has rounded."""

import torch
from torch import Tensor

from qbench.quant.grid import AffineGrid

TOLERANCE = 1e-4
"""How far a weight may lie from its grid point, in steps, beside what its own type rounds: other programs multiply in
another order."""

SAME = 1e-5
"""How close values are one, as a share of a channel's range."""


def recovered_grid(weight: Tensor, bits: int, stored_as: torch.dtype = torch.float32) -> AffineGrid | None:
    """Return the grid for each output channel on which a weight lies, or None if it lies on none of so many bits.

    Of all grids that reach from a channel's lowest value to its highest and hold zero, the coarsest counts on which
    every value lies, up to what its type rounds.

    Args:
        weight: [out, ...].
        bits: of the grid, 2 to 8.
        stored_as: the type that it was stored in, if that is a narrower one.
    """
    scales, zero_points = [], []
    for channel in weight.detach().cpu().double().flatten(1):  # not every device has float64
        found = _of_channel(channel, 2**bits - 1, torch.finfo(stored_as).eps)
        if found is None:
            return None
        scales.append(found[0])
        zero_points.append(found[1])
    shape = (-1, *[1] * (weight.dim() - 1))
    scale, zero_point = (torch.tensor(each, dtype=weight.dtype).view(shape) for each in (scales, zero_points))
    return AffineGrid(bits, scale.to(weight.device), zero_point.to(weight.device))


def _of_channel(channel: Tensor, steps: int, rounding: float) -> tuple[float, float] | None:
    values = torch.cat([channel, channel.new_zeros(1)]).sort().values
    low, span = float(values[0]), float(values[-1] - values[0])
    if span == 0:
        return 1.0, 0.0
    # One grid point's values, computed in different ways, count once.
    values = values[torch.cat([values.new_ones(1, dtype=torch.bool), values.diff() > SAME * span])]
    counts = torch.arange(1, steps + 1, dtype=values.dtype, device=values.device)[:, None]
    if len(values) > 8 * (steps + 1):  # rounded values repeat, and these do not
        return None
    positions = (values - low) / span * counts
    # Both ends are rounded too, and with them the step.
    allowed = TOLERANCE + rounding * (values.abs() + abs(low) + span) / span * counts
    fits = ((positions - positions.round()).abs() <= allowed.clamp(max=0.2)).all(dim=1).nonzero()
    if not len(fits):
        return None
    count = int(fits[0]) + 1
    return span / count, round(-low / span * count)
