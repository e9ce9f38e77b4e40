"""How close the fast recipe for roundings comes to the published one, block by block.

For some blocks of ``tiny-ddim`` the rounding is learned by the published recipe (20,000 iterations on 5,120 rows), by
the fast one as the presets have it (250 iterations on 1,280 rows), and by the fast one on the published rows at several
numbers of iterations n, its learning rate 60 / n. All are judged by the squared error of the block's output with
hard-rounded weights, on 500 rows that none has seen, divided by that of round to nearest. A block's inputs come from
the network with every weight rounded to nearest, the same for all.

    python docs/studies/fast_preset.py --to docs/studies            half an hour on one core
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from trajectories import tiny_ddim, trajectory

from qbench.bits import BitWidth
from qbench.quant import CalibrationData, QuantModel, RoundingRecipe, WeightRanges, set_weight_grids
from qbench.quant.recipes import FAST_ROUNDING, FAST_SAMPLES
from qbench.quant.reconstruction import fit_rounding
from qbench.quant.rounding import SoftRounding
from qbench.quant.units import Unit, Walk

BLOCKS = ("down_blocks.1.resnets.0", "mid_block.attentions.0", "up_blocks.0.resnets.1", "up_blocks.1.resnets.0")
BITS = (4, 3)
PUBLISHED_SAMPLES, HELD_OUT_SAMPLES = 256, 25
"""Samples at each of 20 steps."""
CHECKPOINTS = (50, 100, 150, 300, 500, 1000, 2000, 5000, 10_000, 15_000, 20_000)
FAST_ITERATIONS = (50, 100, 250, 500, 1000, 2000)
RATE = 60.0
"""Learning rate times iterations."""


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
        block: name of the block.
        bits: of its weights.
        recipe: ``published``, ``preset`` or ``fast`` (on the published rows).
        iterations: after so many; of the published recipe all points are from one run, whose schedule ends at 20,000.
        seconds: of one thread's processor time for the learning, without the judging.
        error: hard-rounded error on held-out rows over that of round to nearest.
    """

    block: str
    bits: int
    recipe: str
    iterations: int
    seconds: float
    error: float


def main() -> None:
    """Run the study and write its points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder for fast-preset.csv")
    parser.add_argument("--iterations", type=int, default=20_000, help="of the published recipe")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = calibration_rows()
    with (arguments.to / "fast-preset.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Point.__annotations__)
        for bits in BITS:
            for point in curves(data, bits, arguments.iterations):
                writer.writerow(vars(point).values())
                file.flush()
                print(json.dumps(vars(point)), flush=True)


def calibration_rows() -> CalibrationData:
    """Return rows of the trajectory: those of the fast recipe, then the published one's others, then the held-out."""
    per_step = PUBLISHED_SAMPLES + HELD_OUT_SAMPLES
    rows = trajectory(tiny_ddim(), per_step)
    sample = torch.arange(len(rows)) % per_step
    return rows.rows(sample.argsort(stable=True))


def curves(data: CalibrationData, bits: int, published_iterations: int) -> Iterator[Point]:
    """Yield the points of all blocks at a number of bits."""
    loaded = tiny_ddim().load()
    model = QuantModel(loaded.module.eval().requires_grad_(False), loaded.structure, BitWidth(bits, 32))
    set_weight_grids(model, WeightRanges(estimator="mse"))
    nearest = {name: layer.rounded for name, layer in model.layers.items()}
    held_out = torch.arange(len(data) - 20 * HELD_OUT_SAMPLES, len(data))
    for unit in Walk(model, data, "block", "quantized"):
        if unit.name in BLOCKS:
            yield from _curves_of(unit, data, bits, held_out, published_iterations)
            for name, layer in unit.layers.items():  # the blocks behind are to see round to nearest
                assert layer.weight_grid is not None
                layer.adopt(layer.weight_grid, layer.weight_grid.quantize(nearest[name]))


def _curves_of(
    unit: Unit, data: CalibrationData, bits: int, held_out: Tensor, published_iterations: int
) -> Iterator[Point]:
    nearest = _error(unit, held_out)
    rows = data.rows(torch.arange(20 * FAST_SAMPLES))
    *_, (done, seconds, error) = _learn(unit, rows, RoundingRecipe(**FAST_ROUNDING), held_out, ())
    yield Point(unit.name, bits, "preset", done, seconds, error / nearest)
    published = data.rows(torch.arange(20 * PUBLISHED_SAMPLES))
    for iterations in FAST_ITERATIONS:
        changes = {"iterations": iterations, "learning_rate": RATE / iterations}
        *_, (done, seconds, error) = _learn(
            unit, published, RoundingRecipe(**{**FAST_ROUNDING, **changes}), held_out, ()
        )
        yield Point(unit.name, bits, "fast", done, seconds, error / nearest)
    recipe = RoundingRecipe(iterations=published_iterations)
    for done, seconds, error in _learn(unit, published, recipe, held_out, CHECKPOINTS):
        yield Point(unit.name, bits, "published", done, seconds, error / nearest)


def _learn(
    unit: Unit, data: CalibrationData, recipe: RoundingRecipe, held_out: Tensor, checkpoints: tuple[int, ...]
) -> list[tuple[int, float, float]]:
    """Learn once; return iterations, seconds and held-out error at the checkpoints and at the end."""
    roundings = {
        name: SoftRounding(layer.weight, layer.weight_grid)
        for name, layer in unit.layers.items()
        if layer.weight_grid is not None
    }
    points: list[tuple[int, float, float]] = []
    begun, judging = time.process_time(), 0.0

    def listen(name: str, iteration: int, loss: Tensor) -> None:
        nonlocal judging
        if iteration + 1 in checkpoints and iteration + 1 < recipe.iterations:
            since = time.process_time()
            error = _hard_error(unit, roundings, held_out)
            points.append((iteration + 1, since - begun - judging, error))
            judging += time.process_time() - since

    fit_rounding(unit, roundings, data, recipe, listen=listen)
    seconds = time.process_time() - begun - judging
    return [*points, (recipe.iterations, seconds, _error(unit, held_out))]


def _hard_error(unit: Unit, roundings: dict[str, SoftRounding], rows: Tensor) -> float:
    """Return the error with weights rounded as they lean now."""
    learned = {name: layer.learned for name, layer in unit.layers.items()}
    for name, rounding in roundings.items():
        layer = unit.layers[name]
        assert layer.weight_grid is not None
        layer.learned = layer.weight_grid.dequantize(rounding.integers())
    error = _error(unit, rows)
    for name, layer in unit.layers.items():
        layer.learned = learned[name]
    return error


@torch.no_grad()
def _error(unit: Unit, rows: Tensor) -> float:
    return float((unit.forward(rows) - unit.target[rows]).square().mean())


if __name__ == "__main__":
    main()
