"""What a denoiser estimates in full precision and quantized, at the same inputs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qbench.errors import StageError
from qbench.quant.data import CalibrationData
from qbench.quant.model import QuantModel


@dataclass(frozen=True)
class EstimatePair:
    """Both estimates of some rows, guidance included.

    Attributes:
        full_precision: [rows, *latent shape].
        quantized: in the same shape.
        step_indices: of each row, int64 [rows].
    """

    full_precision: Tensor
    quantized: Tensor
    step_indices: Tensor


@torch.no_grad()
def estimate_pairs(model: QuantModel, data: CalibrationData) -> Iterator[EstimatePair]:
    """Yield what a model puts out in full precision and as it is quantized, batch after batch.

    Where the denoiser is guided, two rows of the data make one estimate, as a sampler gets it.

    Args:
        model: with its grids, not frozen.
        data: its inputs.

    Raises:
        StageError: there are no rows, or an estimate is not finite.
    """
    if not len(data):
        raise StageError("the calibration data has no rows, so there is nothing to compare on")
    is_guided = data.guidance_scale != 1.0
    size = max(2, data.batch_size - data.batch_size % 2) if is_guided else data.batch_size
    for start in range(0, len(data), size):
        rows = slice(start, start + size)
        context = {name: tensor[rows] for name, tensor in data.context.items()}
        arguments = data.x[rows], data.timesteps[rows], context, data.step_indices[rows]
        quantized = model(*arguments)
        with model.full_precision():
            full_precision = model(*arguments)
        steps = data.step_indices[rows]
        if is_guided:
            full_precision, quantized = (_guided(each, data.guidance_scale) for each in (full_precision, quantized))
            steps = steps[::2]
        for what, estimate in (("in full precision", full_precision), ("as it is quantized", quantized)):
            if not bool(estimate.isfinite().all()):
                raise StageError(f"the denoiser's output {what} is not finite on the calibration data")
        yield EstimatePair(full_precision, quantized, steps)
        data.report(len(data.x[rows]) / len(data))


def _guided(estimates: Tensor, scale: float) -> Tensor:
    """Return the guided estimates of pairs of rows, the one with its caption first."""
    conditional, unconditional = estimates[::2], estimates[1::2]
    return unconditional + scale * (conditional - unconditional)
