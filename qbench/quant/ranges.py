"""Range estimators: which interval a grid should cover.

Those for weights are functions of a weight. Those for activations see tensor after tensor while the network runs; two
of them must know the extremes before.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from qbench.bits import LOW_BITS
from qbench.quant.grid import AffineGrid, affine_grid, grid_from_range

MSE_CANDIDATES = 80
MSE_POWER = 2.4
HISTOGRAM_BINS = 2048
HISTOGRAM_VALUES = 2**24
"""How many values are counted at a time: torch counts in float32, which adds no more to so much."""


class RangeEstimator(Protocol):
    """Sees activations and gives a per-tensor grid."""

    def __call__(self, x: Tensor) -> None:
        """Take in a tensor of any shape."""
        ...

    def grid(self, bits: int, symmetric: bool = False) -> AffineGrid:
        """Return the per-tensor grid over what was seen.

        Raises:
            ValueError: nothing was seen, or it was not finite.
        """
        ...


def min_max_per_channel(weight: Tensor, bits: int, symmetric: bool = False) -> AffineGrid:
    """Return the grid of each output channel's own minimum and maximum.

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 2.1
    (arXiv 1806.08342).

    Args:
        weight: [out channels, ...].
        bits: 2 to 8.
        symmetric: whether the grid is symmetric about 0.

    Raises:
        ValueError: the weight is not finite.
    """
    return grid_from_range(*_extremes_per_channel(weight), bits, symmetric)


def mse_per_channel(
    weight: Tensor, bits: int, symmetric: bool = False, candidates: int = MSE_CANDIDATES, power: float = MSE_POWER
) -> AffineGrid:
    """Return, for each output channel, the grid of least error among shrunken minima and maxima.

    Each candidate shrinks both ends by another hundredth; the error is the mean of |x - rounded x| to a power. Of two
    candidates with one error the wider one is taken.

    Source: LAPQ (arXiv 1911.07190), section 3.2, for the L_p norm; 80 candidates and p = 2.4 are Q-Diffusion's
    (arXiv 2302.04304, its code).

    Args:
        weight: [out channels, ...].
        bits: 2 to 8.
        symmetric: whether the grid is symmetric about 0.
        candidates: how many ranges are tried, the unshrunken one included; at most 100.
        power: p.

    Raises:
        ValueError: the weight is not finite.
    """
    low, high = _extremes_per_channel(weight)
    best = grid_from_range(low, high, bits, symmetric)

    def error(grid: AffineGrid) -> Tensor:
        return _error(weight.detach(), grid, power).flatten(1).mean(1).view_as(low)

    least = error(best)
    for share in _shares(candidates)[1:]:
        grid = affine_grid(low * share, high * share, bits, symmetric)
        found = error(grid)
        better = found < least
        least = torch.where(better, found, least)
        scale = torch.where(better, grid.scale, best.scale)
        best = AffineGrid(bits, scale, torch.where(better, grid.zero_point, best.zero_point))
    return best


class RunningMinMax:
    """The extremes of everything seen; the same for every order and partition of the data.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3, without the average over batches.
    """

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def __call__(self, x: Tensor) -> None:
        """Take in a tensor of any shape."""
        low, high = torch.aminmax(x.detach())
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest value seen, both scalars.

        Raises:
            ValueError: nothing was seen.
        """
        if self.low is None or self.high is None:
            raise ValueError("no calibration data reached this layer, so its range is unknown")
        return self.low, self.high

    def grid(self, bits: int, symmetric: bool = False) -> AffineGrid:
        """Return the per-tensor grid over what was seen."""
        return grid_from_range(*self.extremes(), bits, symmetric)


class RunningAverage(RunningMinMax):
    """Exponential moving averages of each batch's extremes; they depend on the order of the batches.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.1; a momentum of 0.95 and the first batch as the start are
    Q-Diffusion's (its code).

    Args:
        momentum: weight of what was seen before.
    """

    def __init__(self, momentum: float = 0.95) -> None:
        super().__init__()
        self._momentum = momentum

    def __call__(self, x: Tensor) -> None:
        """Take in a batch of any shape."""
        low, high = torch.aminmax(x.detach())
        self.low = low if self.low is None else torch.lerp(low, self.low, self._momentum)
        self.high = high if self.high is None else torch.lerp(high, self.high, self._momentum)


class Percentile:
    """The range that leaves out an equal share of the values at either end, from a histogram.

    Source: McKinstry et al. 2018 (arXiv 1809.04191), section 3.1, where it is two-sided as here. Its resolution is
    the width between the extremes over 2048.

    Args:
        extremes: least and greatest value that will be seen.
        percent: share of the values in the range, above 50 and at most 100.
    """

    def __init__(self, extremes: tuple[Tensor, Tensor], percent: float = 99.99) -> None:
        self._low, self._high = extremes
        grid_from_range(self._low, self._high, LOW_BITS[-1])  # refuses what is not finite
        self._percent = percent
        self._counts = torch.zeros(HISTOGRAM_BINS, dtype=torch.float64)

    def __call__(self, x: Tensor) -> None:
        """Take in a tensor of any shape."""
        for part in x.detach().float().flatten().tensor_split(max(1, math.ceil(x.numel() / HISTOGRAM_VALUES))):
            found = torch.histc(part, HISTOGRAM_BINS, float(self._low), float(self._high))
            self._counts += found.to("cpu", torch.float64)

    def grid(self, bits: int, symmetric: bool = False) -> AffineGrid:
        """Return the per-tensor grid over what was seen."""
        total = self._counts.sum()
        if not total:
            raise ValueError("no calibration data reached this layer, so its range is unknown")
        left_out = (1 - self._percent / 100) / 2 * total
        below = int((self._counts.cumsum(0) <= left_out).sum())
        above = int((self._counts.flip(0).cumsum(0) <= left_out).sum())
        width = (self._high - self._low) / HISTOGRAM_BINS
        return grid_from_range(self._low + below * width, self._high - above * width, bits, symmetric)


class MSESearch:
    """The shrunken range of least error; the counterpart of ``mse_per_channel`` for activations.

    Args:
        extremes: least and greatest value that will be seen.
        bits: 2 to 8, or 16.
        symmetric: whether the grid is symmetric about 0.
        candidates: how many ranges are tried; at most 100.
        power: p of the error.
    """

    def __init__(
        self,
        extremes: tuple[Tensor, Tensor],
        bits: int,
        symmetric: bool = False,
        candidates: int = MSE_CANDIDATES,
        power: float = MSE_POWER,
    ) -> None:
        low, high = extremes
        widest = grid_from_range(low, high, bits, symmetric)
        rest = [affine_grid(low * share, high * share, bits, symmetric) for share in _shares(candidates)[1:]]
        self._grids = [widest, *rest]
        self._power = power
        self._errors = torch.zeros(candidates, dtype=torch.float64)
        self._count = 0

    def __call__(self, x: Tensor) -> None:
        """Take in a tensor of any shape."""
        x = x.detach()
        self._count += x.numel()
        self._errors += torch.stack([_error(x, grid, self._power).sum() for grid in self._grids]).to("cpu")

    def grid(self, bits: int, symmetric: bool = False) -> AffineGrid:
        """Return the per-tensor grid over what was seen; bits and symmetry were settled before."""
        if not self._count:
            raise ValueError("no calibration data reached this layer, so its range is unknown")
        return self._grids[int(self._errors.argmin())]


def _extremes_per_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    flat = weight.detach().flatten(1)
    shape = (-1, *(1,) * (weight.dim() - 1))
    return flat.amin(1).view(shape), flat.amax(1).view(shape)


def _shares(candidates: int) -> list[float]:
    if not 1 <= candidates <= 100:
        raise ValueError(f"{candidates} candidates cannot each shrink the range by another hundredth: 1 to 100 can")
    return [1 - index / 100 for index in range(candidates)]


def _error(x: Tensor, grid: AffineGrid, power: float) -> Tensor:
    # As exp and log, a power takes half the time.
    return (grid(x) - x).abs_().log_().mul_(power).exp_()
