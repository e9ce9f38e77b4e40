"""Learned rounding: each weight goes up or down, whichever serves the layer's output better.

Source: AdaRound (Nagel et al. 2020, arXiv 2004.10568), section 3.2.
"""

import math

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from qbench.quant.grid import WeightGrid

GAMMA, ZETA = -0.1, 1.1
_BEND = 0.5 / (ZETA - GAMMA)
_OUTSIDE = 0.05  # how far beyond 0 or 1, before it is clamped, h starts for a weight behind an end of the grid


def _slope(centred: float) -> float:
    """Return the derivative of 2h - 1 by alpha at a value of 2h - 1 that is not clamped."""
    return 0.5 * (ZETA - GAMMA) - _BEND * centred**2


def _log_(x: Tensor) -> Tensor:
    """Take the logarithm in place: on a CPU numpy's, which takes a third of the time of torch's on one thread."""
    if x.device.type != "cpu":
        return x.log_()
    numpy.log(x.numpy(), out=x.numpy())
    return x


class SoftRounding:
    """A weight between its two neighbours on a grid.

    The weight is scale * (clamp(floor(w / scale) + h + zero_point) - zero_point), where h is the rectified sigmoid of
    ``alpha``: clamp(sigmoid(alpha) * 1.2 - 0.1, 0, 1). It starts where h is the fraction of w / scale, which gives the
    original weight back (clamped to the grid).

    The weight is computed as the middle of its neighbours plus half their distance times 2h - 1, and gradients are
    written out from that, in as few passes over memory as go: an iteration would otherwise cost twice what the block
    itself does. ``weight`` begins an iteration, ``back_propagate`` ends it.

    A weight behind either end of the grid stays at that end: its h starts at 0 or 1, where the clamp stops gradients.

    Args:
        weight: the original weight.
        grid: its grid.

    Attributes:
        alpha: what is learned, in the shape of the weight; its ``grad`` is set by ``back_propagate``.
    """

    def __init__(self, weight: Tensor, grid: WeightGrid) -> None:
        dense = grid.dense(weight.shape)
        scaled = weight.detach() / dense.scale
        self._low, self._high = -dense.zero_point, dense.levels - 1 - dense.zero_point
        self._floor = scaled.floor().clamp_(self._low, self._high - 1)
        self._half = 0.5 * dense.scale
        self._middle = (self._floor + 0.5) * dense.scale
        share = (scaled - self._floor).clamp_(min=-_OUTSIDE)
        share = torch.where(scaled >= self._high, 1 + _OUTSIDE, share)
        self.alpha = ((ZETA - GAMMA) / (share - GAMMA) - 1).log_().neg_()
        self._centred = torch.empty_like(self.alpha)
        self._start = self.alpha.new_tensor(2 * GAMMA - 1)
        self._steepest = self.alpha.new_tensor(_slope(0.0))
        self._tiny = self.alpha.new_tensor(1e-30)  # keeps a logarithm finite
        self._weight = torch.empty_like(self.alpha).requires_grad_(True)

    def soft(self) -> Tensor:
        """Return h, 0 to 1, in the shape of the weight."""
        return (self.alpha.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp_(0, 1)

    def weight(self) -> Tensor:
        """Return the weight of now, which asks for its gradient; a second call overwrites the first one's."""
        with torch.no_grad():
            torch.sigmoid(self.alpha, out=self._centred)
            torch.add(self._start, self._centred, alpha=2 * (ZETA - GAMMA), out=self._centred).clamp_(-1, 1)
            torch.addcmul(self._middle, self._centred, self._half, out=self._weight.detach())
        self._weight.grad = None
        return self._weight

    @torch.no_grad()
    def back_propagate(self, strength: float = 0.0, beta: float | None = None) -> None:
        """Set alpha's gradient, from that of the weight and of the push towards 0 and 1.

        Args:
            strength: factor of the push, the sum over all weights of 1 - |2h - 1|^beta (equation 24).
            beta: exponent of the push, above 1; None leaves it out.

        Raises:
            RuntimeError: no loss was propagated back to the weight before.
        """
        if self._weight.grad is None:
            raise RuntimeError("the weight has no gradient yet: propagate a loss back first")
        centred, room = self._centred, self._weight.detach()  # whose values have served
        gradient = self._weight.grad.mul_(self._half)
        if beta is not None:
            square = torch.addcmul(self._tiny, centred, centred, out=room)
            # |2h - 1|^(beta - 2); exp2 takes a third of the time of exp, and both take less than a power.
            power = _log_(square).mul_((beta / 2 - 1) / math.log(2)).exp2_()
            gradient.addcmul_(power, centred, value=-beta * strength)
        slope = torch.addcmul(self._steepest, centred, centred, value=-_BEND, out=room)
        functional.threshold(slope, _slope(1.0) * (1 + 1e-6), 0.0, inplace=True)  # at 0 and 1 the clamp has none
        self.alpha.grad = gradient.mul_(slope)

    def integers(self) -> Tensor:
        """Return the integers on the grid after every h went to the nearer of 0 and 1."""
        hard = (self.alpha >= 0).to(self._floor.dtype)
        return self._floor + hard - self._low


def annealed(iteration: int, iterations: int, warm_up: float, start: float, end: float) -> float | None:
    """Return beta at an iteration, counted from 0; None during the warm-up, when nothing is pushed.

    It falls linearly from ``start`` at the end of the warm-up to ``end`` at the last iteration (Q-Diffusion's and
    BRECQ's code; the paper leaves the schedule open).
    """
    count, first = iteration + 1, warm_up * iterations
    if count < first:
        return None
    return end + (start - end) * (1 - (count - first) / (iterations - first))
