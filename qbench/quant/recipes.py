"""Settings of what the core does for methods. They load without torch, so that listings stay fast."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from qbench.settings import Settings


class WeightRanges(Settings):
    """How the grids of weights are chosen, one for each output channel."""

    estimator: Annotated[
        Literal["min-max", "mse"],
        Field(description="extremes, or the least error (p = 2.4) of ranges that shrink by 1 % each"),
    ] = "min-max"
    symmetric: Annotated[bool, Field(description="whether grids are symmetric about 0")] = False
    candidates: Annotated[int, Field(ge=1, le=100, description="ranges that mse tries")] = 80


class ActivationRanges(Settings):
    """How the grids of activations are chosen; ``token`` always takes the extremes of each token as it comes."""

    estimator: Annotated[
        Literal["min-max", "running-average", "percentile", "mse"],
        Field(description="extremes, moving average of each batch's, percentile, or least error as for weights"),
    ] = "min-max"
    symmetric: Annotated[bool, Field(description="whether grids are symmetric about 0; the softmax's never is")] = False
    granularity: Annotated[
        Literal["tensor", "step", "token"],
        Field(description="one range for all, one for each sampling step, or one from each token as it comes"),
    ] = "tensor"
    samples: Annotated[
        int | None, Field(ge=1, description="rows of the calibration data, drawn at random; null takes all")
    ] = None
    candidates: Annotated[int, Field(ge=1, le=100, description="ranges that mse tries")] = 80
    momentum: Annotated[float, Field(ge=0, lt=1, description="of the running-average")] = 0.95
    percent: Annotated[float, Field(gt=50, le=100, description="share of values within the range of percentile")] = (
        99.99
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.symmetric and self.granularity == "token":
            raise ValueError("ranges from each token as it comes are not offered as symmetric ones")
        return self


Normalization = Literal["published", "relative"]


class RoundingRecipe(Settings):
    """How roundings are learned (AdaRound, arXiv 2004.10568); the defaults are those of BRECQ and Q-Diffusion.

    The loss is the squared error of a unit's output. ``published`` sums it over channels, averages over the rest, and
    adds ``regularizer`` times the sum over all weights of 1 - |2h - 1|^beta. ``relative`` divides the mean squared
    error by what it is with round to nearest, and takes the mean over weights: one learning rate and one regularizer
    then suit all units and bits, and far fewer iterations do.
    """

    iterations: Annotated[int, Field(ge=1, description="for each block, or layer outside of blocks")] = 20_000
    batch_size: Annotated[int, Field(ge=1, description="rows for each iteration")] = 32
    learning_rate: Annotated[float, Field(gt=0, description="of Adam")] = 1e-3
    regularizer: Annotated[float, Field(ge=0, description="weight of the push towards 0 and 1")] = 0.01
    loss: Annotated[Normalization, Field(description="how the loss is normalized")] = "published"
    warm_up: Annotated[float, Field(ge=0, lt=1, description="share of iterations without the push")] = 0.2
    beta_start: Annotated[float, Field(gt=1, description="exponent at the end of the warm-up")] = 20.0
    beta_end: Annotated[float, Field(gt=1, description="exponent at the end")] = 2.0


class StepSizeRecipe(Settings):
    """How step sizes of activations are learned (LSQ, arXiv 1902.08153); defaults of BRECQ and Q-Diffusion.

    The loss is |error|^p of a unit's output, normalized as in ``RoundingRecipe``; zero points stay. The learning rate
    falls to 0 along a cosine.
    """

    iterations: Annotated[int, Field(ge=1, description="for each block, or layer outside of blocks")] = 5_000
    batch_size: Annotated[int, Field(ge=1, description="rows for each iteration")] = 32
    learning_rate: Annotated[float, Field(gt=0, description="of Adam, at the start")] = 4e-4
    power: Annotated[float, Field(ge=1, description="p of the loss")] = 2.4
    loss: Annotated[Normalization, Field(description="how the loss is normalized")] = "published"
    logarithmic: Annotated[
        bool, Field(description="whether the logarithm of a step size is learned, so that the rate is relative")
    ] = False


FAST_ROUNDING: Mapping[str, Any] = {
    "iterations": 250,
    "batch_size": 16,
    "learning_rate": 0.24,
    "regularizer": 400.0,
    "loss": "relative",
}
"""A rounding recipe for tiny models, an eightieth of the published iterations at half their batch size. For other
numbers of iterations n, 60 / n is a good learning rate; docs/fast-preset.md compares them with the published recipe.
"""
FAST_STEP_SIZES: Mapping[str, Any] = {
    "iterations": 50,
    "learning_rate": 0.001,
    "loss": "relative",
    "logarithmic": True,
}
"""The same for step sizes: cautious, as longer learning lowers the blocks' errors and raises the images'."""
FAST_SAMPLES = 64
"""Samples at each of 20 steps for the two."""
FAST_RANGE_ROWS = 500
"""Rows for the first ranges of activations, as many as the fast presets without reconstruction take."""
