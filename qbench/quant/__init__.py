"""Quantization of a denoiser, in pure torch over (module, structure).

Names are loaded at first use, so that a method can say ``from qbench import quant`` and still be listed, and its
settings be read, without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qbench.quant.census import Count, Coverage, coverage, take_census
    from qbench.quant.checkpoint import checkpoint_digest, load_checkpoint
    from qbench.quant.data import CalibrationData
    from qbench.quant.estimates import EstimatePair, estimate_pairs
    from qbench.quant.grid import AffineGrid, Grid, WeightGrid, grid_from_range
    from qbench.quant.grid_kinds import ChannelScaledGrid, DynamicGrid, SplitGrid, StepGrid
    from qbench.quant.hessians import input_hessians, inverse_factor
    from qbench.quant.layers import LayerBits, QuantLayer, Tap
    from qbench.quant.model import QuantModel
    from qbench.quant.output_noise import OutputNoise, measure_noise
    from qbench.quant.ranges import (
        MSESearch,
        Percentile,
        RunningAverage,
        RunningMinMax,
        min_max_per_channel,
        mse_per_channel,
    )
    from qbench.quant.recipes import ActivationRanges, RoundingRecipe, StepSizeRecipe, WeightRanges
    from qbench.quant.reconstruction import learn_input_grids, learn_rounding, learn_step_sizes
    from qbench.quant.recovered import recovered_grid
    from qbench.quant.replacement import Replacement
    from qbench.quant.round_to_nearest import set_dynamic_grids, set_input_grids, set_weight_grids
    from qbench.quant.smoothing import channel_maxima, input_factors, is_convolution, smoothing_factors
    from qbench.quant.units import time_layers

_HOMES = {
    "ActivationRanges": "recipes",
    "AffineGrid": "grid",
    "CalibrationData": "data",
    "ChannelScaledGrid": "grid_kinds",
    "Count": "census",
    "Coverage": "census",
    "DynamicGrid": "grid_kinds",
    "EstimatePair": "estimates",
    "Grid": "grid",
    "LayerBits": "layers",
    "MSESearch": "ranges",
    "OutputNoise": "output_noise",
    "Percentile": "ranges",
    "QuantLayer": "layers",
    "QuantModel": "model",
    "Replacement": "replacement",
    "RoundingRecipe": "recipes",
    "RunningAverage": "ranges",
    "RunningMinMax": "ranges",
    "SplitGrid": "grid_kinds",
    "StepGrid": "grid_kinds",
    "StepSizeRecipe": "recipes",
    "Tap": "layers",
    "WeightGrid": "grid",
    "WeightRanges": "recipes",
    "channel_maxima": "smoothing",
    "checkpoint_digest": "checkpoint",
    "coverage": "census",
    "estimate_pairs": "estimates",
    "grid_from_range": "grid",
    "input_factors": "smoothing",
    "input_hessians": "hessians",
    "inverse_factor": "hessians",
    "is_convolution": "smoothing",
    "learn_input_grids": "reconstruction",
    "learn_rounding": "reconstruction",
    "learn_step_sizes": "reconstruction",
    "load_checkpoint": "checkpoint",
    "measure_noise": "output_noise",
    "min_max_per_channel": "ranges",
    "mse_per_channel": "ranges",
    "recovered_grid": "recovered",
    "set_dynamic_grids": "round_to_nearest",
    "set_input_grids": "round_to_nearest",
    "set_weight_grids": "round_to_nearest",
    "smoothing_factors": "smoothing",
    "take_census": "census",
    "time_layers": "units",
}
__all__ = [
    "ActivationRanges",
    "AffineGrid",
    "CalibrationData",
    "ChannelScaledGrid",
    "Count",
    "Coverage",
    "DynamicGrid",
    "EstimatePair",
    "Grid",
    "LayerBits",
    "MSESearch",
    "OutputNoise",
    "Percentile",
    "QuantLayer",
    "QuantModel",
    "Replacement",
    "RoundingRecipe",
    "RunningAverage",
    "RunningMinMax",
    "SplitGrid",
    "StepGrid",
    "StepSizeRecipe",
    "Tap",
    "WeightGrid",
    "WeightRanges",
    "channel_maxima",
    "checkpoint_digest",
    "coverage",
    "estimate_pairs",
    "grid_from_range",
    "input_factors",
    "input_hessians",
    "inverse_factor",
    "is_convolution",
    "learn_input_grids",
    "learn_rounding",
    "learn_step_sizes",
    "load_checkpoint",
    "measure_noise",
    "min_max_per_channel",
    "mse_per_channel",
    "recovered_grid",
    "set_dynamic_grids",
    "set_input_grids",
    "set_weight_grids",
    "smoothing_factors",
    "take_census",
    "time_layers",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
