"""How much the denoiser's output minds an error in a block's output."""

import torch
from torch import Tensor

from qbench.diffusion.structures import State
from qbench.quant.data import CalibrationData
from qbench.quant.model import QuantModel
from qbench.quant.running_state import Budget, Rows, slices

_BLOCKS = ("residual", "attention")


def block_sensitivities(model: QuantModel, data: CalibrationData, budget: Budget) -> dict[str, Rows]:
    """Return the diagonal of the Fisher information at each block's output, row by row, with mean 1.

    It is the squared gradient of half the squared difference between the denoiser's outputs quantized and in full
    precision; that difference takes the place of BRECQ's Kullback-Leibler divergence of class probabilities (arXiv
    2102.05426, section 3.2), which a denoiser has not. BRECQ's code quantizes the network up to the block for each
    block in turn; here it is quantized as a whole, once, so that one pass gives all blocks.

    Args:
        model: with the weights' grids.
        data: what passes through it.
        budget: what the result is counted against.
    """
    found: dict[str, Rows] = {}
    sums: dict[str, float] = {}
    for rows in slices(len(data), data.batch_size):
        for name, gradient in _gradients(model, data, rows).items():
            square = gradient.square()
            if name not in found:
                found[name] = budget.rows(len(data), square)
                sums[name] = 0.0
            found[name].write(rows, square)
            sums[name] += float(square.sum(dtype=torch.float64))
    for name, kept in found.items():
        mean = sums[name] / (len(data) * kept[slice(0, 1)].numel())
        for rows in slices(len(data), data.batch_size):
            kept.write(rows, kept[rows] / mean if mean > 0 else torch.ones_like(kept[rows]))
    return found


@torch.enable_grad()
def _gradients(model: QuantModel, data: CalibrationData, rows: slice) -> dict[str, Tensor]:
    context = {name: tensor[rows] for name, tensor in data.context.items()}
    start = State(data.x[rows].clone().requires_grad_(True), data.timesteps[rows], context=context)
    with model.at(data.step_indices[rows]):
        with torch.no_grad(), model.full_precision():
            exact = model.structure.compose(model.module, start)
        state = start
        outputs = {}
        for segment in model.structure.segments:
            state = segment.run(model.module, state)
            if segment.kind in _BLOCKS:
                outputs[segment.name] = state.h
    loss = (state.h - exact).square().sum() / 2
    return dict(zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True))
