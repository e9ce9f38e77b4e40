"""Range estimators: which interval a grid should cover."""

import torch
from torch import Tensor

from qbench.quant.grid import AffineGrid, grid_from_range


def min_max_per_channel(weight: Tensor, bits: int) -> AffineGrid:
    """Return the grid of each output channel's own minimum and maximum.

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 2.1
    (arXiv 1806.08342).

    Args:
        weight: [out channels, ...].
        bits: 2 to 8.
    """
    flat = weight.detach().flatten(1)
    shape = (-1, *(1,) * (weight.dim() - 1))
    return grid_from_range(flat.amin(1).view(shape), flat.amax(1).view(shape), bits)


class RunningMinMax:
    """The extremes of everything seen; the same for every order and partition of the data."""

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def __call__(self, x: Tensor) -> None:
        """Take in a tensor of any shape."""
        low, high = torch.aminmax(x.detach())
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def grid(self, bits: int) -> AffineGrid:
        """Return the per-tensor grid over what was seen.

        Raises:
            ValueError: nothing was seen, or it was not finite.
        """
        if self.low is None or self.high is None:
            raise ValueError("no calibration data reached this layer, so its range is unknown")
        return grid_from_range(self.low, self.high, bits)
