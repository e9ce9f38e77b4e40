"""Factors that move the range of a layer's input, channel by channel, into its weight."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from qbench.errors import StageError
from qbench.quant.data import CalibrationData
from qbench.quant.layers import QuantLayer
from qbench.quant.model import QuantModel

LEAST_SHARE = 1e-5
"""Of the greatest channel, what each channel is taken to have at least: one that is 0 would have no factor."""
_LINEAR = 2
"""Axes of a linear layer's weight."""


class ChannelMaxima:
    """The greatest absolute value of each channel of everything seen; the same for every order and partition.

    Args:
        axis: of the channels: 1 for images, -1 for tokens.

    Attributes:
        maxima: [channels], None before anything was seen.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self.maxima: Tensor | None = None

    def __call__(self, x: Tensor) -> None:
        """Take in a batch, with the channels where they were said to be."""
        found = x.detach().abs().movedim(self._axis, 0).flatten(1).amax(1)
        self.maxima = found if self.maxima is None else torch.maximum(self.maxima, found)


def channel_maxima(model: QuantModel, data: CalibrationData, names: Collection[str]) -> dict[str, Tensor]:
    """Return the greatest absolute value [channels] of each channel of the inputs of some layers.

    Args:
        model: as it is set now; inputs are seen before they are rounded.
        data: what passes through it.
        names: of layers; one that is not called is not in what is returned.
    """
    seen = {name: ChannelMaxima(-1 if model.layers[name].weight.dim() == _LINEAR else 1) for name in names}

    def observer(name: str) -> Callable[[Tensor], None]:
        return seen.get(name, lambda x: None)

    with model.observing(observer):
        data.run_through(model)
    return {name: each.maxima for name, each in seen.items() if each.maxima is not None}


def smoothing_factors(maxima: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Return ``max|X_j|^alpha / max|W_j|^(1 - alpha)`` for each input channel j, as ``ChannelScaledGrid`` has it.

    With X divided and W multiplied by it, alpha 0.5 makes their maxima equal in each channel; 1 makes all channels of
    X alike, 0 all of W. A channel that is all 0 counts as a hundred-thousandth of the greatest one.

    Source: SmoothQuant (arXiv 2211.10438), section 4, equation 4.

    Args:
        maxima: [channels], of the input's absolute values.
        weight: [out channels, channels, ...].
        alpha: 0 to 1; how much of the difficulty goes from the input into the weight.

    Returns:
        float32 [channels], with as many axes of 1 behind as the weight has more than two.
    """
    given, own = maxima, weight.detach().abs().movedim(1, 0).flatten(1).amax(1)
    if not (bool(given.max() > 0) and bool(own.max() > 0)):
        factor = torch.ones_like(given)  # nothing to move
    else:
        given, own = (each.clamp(min=LEAST_SHARE * each.max()) for each in (given, own))
        factor = given**alpha / own ** (1 - alpha)
    return factor.to(torch.float32).view(-1, *(1,) * (weight.dim() - _LINEAR))


def input_factors(
    model: QuantModel,
    data: CalibrationData,
    alpha: float,
    chosen: Callable[[str, QuantLayer], bool] = lambda name, layer: True,
) -> dict[str, Tensor]:
    """Return the smoothing factors of layers by name, from the greatest values that pass in the model as it is set.

    Convolutions with groups get none, as an input channel has no weight column of its own there.

    Args:
        model: the model.
        data: what passes through it.
        alpha: as ``smoothing_factors`` has it.
        chosen: says whether a layer is to have factors.

    Raises:
        StageError: an input is not finite.
    """
    names = [name for name, layer in model.layers.items() if layer.groups == 1 and chosen(name, layer)]
    if not names:
        data.report(1.0)
        return {}
    found = channel_maxima(model, data, names)
    for name, maxima in found.items():
        if not bool(maxima.isfinite().all()):
            raise StageError(f"the activation {name!r} holds NaN or infinity, so it cannot be smoothed")
    return {name: smoothing_factors(maxima, model.layers[name].weight, alpha) for name, maxima in found.items()}


def is_convolution(layer: QuantLayer) -> bool:
    """Whether a layer's weight has a window."""
    return layer.weight.dim() > _LINEAR
