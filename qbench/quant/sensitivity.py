"""How much the denoiser's output minds an error in a block's output."""

import torch
from torch import Tensor

from qbench.diffusion.noise import Purpose, normal
from qbench.diffusion.structures import State
from qbench.quant.data import CalibrationData
from qbench.quant.model import QuantModel
from qbench.quant.running_state import Budget, Rows, slices

_BLOCKS = ("residual", "attention")
DRAWS = 4
"""Outputs drawn for each row: gradients of one alone would be as noisy as they are large."""


def block_sensitivities(model: QuantModel, data: CalibrationData, budget: Budget) -> dict[str, Rows]:
    """Return an estimate of the diagonal of the Fisher information at each block's output, row by row, with mean 1.

    A denoiser is trained by squared errors, so its outputs are the means of a normal distribution of unit variance,
    and the information is the expected squared gradient of that distribution's log-likelihood at an output drawn from
    it: here the mean over ``DRAWS`` of them. BRECQ (arXiv 2102.05426, section 3.2) takes the squared gradient of a
    classifier's loss instead, which a denoiser's calibration data do not allow; what its code takes, the difference
    between the quantized and the full-precision output, is no draw from the model and gives a few rows all the weight.

    Args:
        model: in whatever state; full precision is looked at.
        data: what passes through it.
        budget: what the result is counted against.
    """
    found: dict[str, Rows] = {}
    sums: dict[str, float] = {}
    for rows in slices(len(data), data.batch_size):
        for name, square in _squared_gradients(model, data, rows).items():
            if name not in found:
                found[name] = budget.rows(len(data), square)
                sums[name] = 0.0
            found[name].write(rows, square)
            sums[name] += float(square.cpu().sum(dtype=torch.float64))  # not every device has float64
    for name, kept in found.items():
        mean = sums[name] / (len(data) * kept[slice(0, 1)].numel())
        for rows in slices(len(data), data.batch_size):
            kept.write(rows, kept[rows] / mean if mean > 0 else torch.ones_like(kept[rows]))
    return found


@torch.enable_grad()
def _squared_gradients(model: QuantModel, data: CalibrationData, rows: slice) -> dict[str, Tensor]:
    context = {name: tensor[rows] for name, tensor in data.context.items()}
    # A leaf that asks for its gradient, as no parameter does.
    state = State(data.x[rows].clone().requires_grad_(True), data.timesteps[rows], context=context)
    outputs = {}
    with model.full_precision():
        for segment in model.structure.segments:
            state = segment.run(model.module, state)
            if segment.kind in _BLOCKS:
                outputs[segment.name] = state.h
    squares = {name: torch.zeros_like(output) for name, output in outputs.items()}
    for residual in _residuals(data.seed, rows, state.h.shape[1:]).to(state.h):
        gradients = torch.autograd.grad(state.h, list(outputs.values()), residual, retain_graph=True)
        for square, gradient in zip(squares.values(), gradients, strict=True):
            square.addcmul_(gradient, gradient, value=1 / DRAWS)
    return {name: square.detach() for name, square in squares.items()}


def _residuals(seed: int, rows: slice, shape: torch.Size) -> Tensor:
    """Return draws [draws, rows, *shape], each row's its own, so that they do not depend on the batch."""
    drawn = normal((DRAWS, *shape), seed=seed, purpose=Purpose.FISHER, indices=range(rows.start, rows.stop))
    return torch.from_numpy(drawn).transpose(0, 1)
