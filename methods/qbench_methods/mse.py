"""Round to nearest, with ranges of least squared error."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from qbench.quant.recipes import ActivationRanges, WeightRanges
from qbench_methods.linear import Linear, LinearSettings


class MSESettings(LinearSettings):
    """Settings of round to nearest with ranges of least error."""

    weights: Annotated[WeightRanges, Field(description="how grids of weights are chosen")] = WeightRanges(
        estimator="mse"
    )
    activations: Annotated[ActivationRanges, Field(description="how grids of activations are chosen")] = (
        ActivationRanges(estimator="mse", samples=64)
    )


class MSE(Linear):
    """Round to nearest as ``linear`` does, on ranges that are shrunk to where the rounding errs least.

    What reconstruction methods start from, without the reconstruction: 80 candidates that each shrink the extremes by
    another hundredth, the least mean of |error|^2.4. For activations the error is taken over 64 calibration samples.
    """

    settings_class = MSESettings
    title = "round to nearest on ranges of least error"
    paper = "Nahshan et al. 2019 (LAPQ), arXiv 1911.07190, section 3.2"
    revision = 1
    presets: ClassVar = {"strict": {}, "fast": {"calibration": {"per_step": 25}}}
    settings: MSESettings
