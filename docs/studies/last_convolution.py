"""What four bits do to the last convolution of ``tiny-ddim``, and that to the images.

Weights are rounded to nearest on the extremes of their channels, at four bits, in some layers and not in others; images
are compared with those of full precision from the same noise. Then the rounding of the last convolution is learned, as
AdaRound's fast preset learns it, from three seeds. Written are two tables: the images by what was quantized, and the
error of the noise estimate step by step on the full-precision trajectory. The last rows of the first table are for
suites with 8-bit boundary layers: two ways of choosing ranges, at four and three bits.

    python docs/studies/last_convolution.py --to docs/studies            four minutes on one core
"""

import argparse
import csv
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from trajectories import tiny_ddim, trajectory

from qbench.bits import BitWidth
from qbench.diffusion.noise import Purpose
from qbench.diffusion.samplers import NoiseSource, StepContext, make_sampler, sample
from qbench.quant import (
    QuantModel,
    RoundingRecipe,
    WeightRanges,
    learn_rounding,
    mse_per_channel,
    set_weight_grids,
)
from qbench.quant.recipes import FAST_ROUNDING, FAST_SAMPLES

SAMPLES = 250
LAST, FIRST = "conv_out", "conv_in"


@dataclass(frozen=True)
class Images:
    """What became of the images.

    Attributes:
        quantized: what was quantized.
        bits: of the weights.
        steps: sampling steps at which it was.
        mse: mean squared difference from full precision, images in [-1, 1].
        darkening: mean of full precision minus mean of these, in grey values of 255.
        error: of the noise estimate on the full-precision trajectory, root of the mean square over all steps.
        constant: share of that mean square that is one constant for each step and channel of the output.
    """

    quantized: str
    bits: int
    steps: str
    mse: float
    darkening: float
    error: float
    constant: float


@dataclass(frozen=True)
class Step:
    """The error of the noise estimate with the last convolution at four bits, on the full-precision trajectory.

    Attributes:
        timestep: of the step.
        error: root of the mean square.
        constant: share of the mean square that is one constant for each of the output's channels.
        constant_rest: the same for all layers but the last convolution at four bits.
        input_mean: mean over channels of the |mean| of what goes into the last convolution, over its deviation.
    """

    timestep: int
    error: float
    constant: float
    constant_rest: float
    input_mean: float


class Study:
    """The workload with all weights on grids, and its images in full precision."""

    def __init__(self, bits: int, boundary_bits: int | None = None, ranges: WeightRanges | None = None) -> None:
        self.workload = tiny_ddim()
        loaded = self.workload.load()
        self.codec = loaded.codec
        self.bits = bits
        module = loaded.module.eval().requires_grad_(False)
        self.model = QuantModel(module, loaded.structure, BitWidth(bits, 32), boundary_bits)
        set_weight_grids(self.model, ranges or WeightRanges())
        self.sampler = make_sampler(self.workload.schedule, self.workload.sampler)
        self.trajectory: list[Tensor] = []
        self.exact = self._sample(lambda step: (), lambda step, x: self.trajectory.append(x))

    @property
    def all_layers(self) -> frozenset[str]:
        """Names of all layers."""
        return frozenset(self.model.layers)

    def images(
        self,
        what: str,
        names: Collection[str],
        steps: range | None = None,
        shift: Callable[[int], Tensor] | None = None,
    ) -> Images:
        """Sample with some layers quantized, at all steps or at some; ``shift`` is taken from the noise estimate."""
        found = self._sample(lambda step: names if steps is None or step in steps else (), shift=shift)
        named = "all" if steps is None else f"{steps.start} to {steps.stop - 1}"
        mse = (found - self.exact).square().mean()
        darkening = 127.5 * (self.exact.mean() - found.mean())
        count = range(len(self.sampler)) if steps is None else steps
        errors = torch.stack([self.errors(names, step) - (shift(step) if shift else 0.0) for step in count])
        constant = errors.mean((1, 3, 4)).square().mean() / errors.square().mean()
        error = float(errors.square().mean().sqrt())
        return Images(what, self.bits, named, float(mse), float(darkening), error, float(constant))

    def mean_errors(self, names: Collection[str]) -> Callable[[int], Tensor]:
        """Return each step's mean error of the noise estimate with some layers quantized."""
        found = [self.errors(names, step).mean((0, 2, 3), keepdim=True) for step in range(len(self.sampler))]
        return found.__getitem__

    def learn_last(self, seed: int) -> None:
        """Learn the rounding of the last convolution, everything before it in full precision."""
        for name, layer in self.model.layers.items():
            if name != LAST:
                layer.weight_grid = None
        self.model.layers[LAST].weight_grid = mse_per_channel(self.model.layers[LAST].weight, self.bits)
        data = trajectory(self.workload, FAST_SAMPLES, seed)
        learn_rounding(self.model, data, RoundingRecipe(**FAST_ROUNDING), "layer")

    @torch.no_grad()
    def errors(self, names: Collection[str], step: int) -> Tensor:
        """Return the error of the noise estimate at a step of the full-precision trajectory."""
        exact, quantized = (self._estimate(each, step, self.trajectory[step]) for each in ((), names))
        return quantized - exact

    def input_mean(self, step: int) -> float:
        """Return how large the channels' means are that go into the last convolution, in deviations."""
        seen: list[Tensor] = []
        self.model.taps[LAST].observer = seen.append
        with torch.no_grad():
            self._estimate((), step, self.trajectory[step])
        self.model.taps[LAST].observer = None
        return float((seen[0].mean((0, 2, 3)).abs() / seen[0].std((0, 2, 3))).mean())

    def _estimate(self, names: Collection[str], step: int, x: Tensor) -> Tensor:
        timesteps = torch.full((len(x),), int(self.sampler.timesteps[step]))
        with self.model.quantizing_only(names):
            return self.model(x, timesteps)

    @torch.no_grad()
    def _sample(
        self,
        names: Callable[[int], Collection[str]],
        observe: Callable[[StepContext, Tensor], None] | None = None,
        shift: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        def denoise(x: Tensor, step: StepContext) -> Tensor:
            estimate = self._estimate(names(step.step_index), step.step_index, x)
            return estimate if shift is None else estimate - shift(step.step_index)

        noise = NoiseSource(self.workload.latent_shape, 0, Purpose.EVALUATION, range(SAMPLES))
        latents = sample(denoise, self.sampler, noise, torch.device("cpu"), observe)
        return self.codec.decode(latents).clamp(-1, 1)


def main() -> None:
    """Run the study and write its two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder for the two CSV files")
    folder = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    study = Study(4)
    learned = [row for seed in range(3) for row in of_learned(seed)]
    ranges = [row for estimator in ("min-max", "mse") for bits in (4, 3) for row in of_ranges(bits, estimator)]
    rows = [*of_four_bits(study), *learned, *of_eight_bits(Study(8)), *ranges]
    write(folder / "last-convolution-images.csv", Images, rows)
    write(folder / "last-convolution-steps.csv", Step, by_step(study))


def of_four_bits(study: Study) -> list[Images]:
    """Return the images with various layers at four bits."""
    everything, rest = study.all_layers, study.all_layers - {LAST}
    count = len(study.sampler)
    by_step = study.mean_errors({LAST})
    constant = torch.stack([by_step(step) for step in range(count)]).mean(0)
    thirds = [range(0, 7), range(7, 14), range(14, count)]
    return [
        study.images("every layer", everything),
        study.images("every layer but the last convolution", rest),
        study.images("every layer but the first and the last convolution", rest - {FIRST}),
        study.images("the first convolution alone", {FIRST}),
        study.images("the last convolution alone", {LAST}),
        *(study.images("the last convolution alone", {LAST}, steps) for steps in thirds),
        study.images("the last convolution alone, its mean error taken off", {LAST}, shift=lambda step: constant),
        study.images("the last convolution alone, each step's mean error taken off", {LAST}, shift=by_step),
        study.images("every layer, the last convolution's mean error taken off", everything, shift=lambda _: constant),
    ]


def of_learned(seed: int) -> list[Images]:
    """Return the images with the last convolution alone at four bits, its rounding learned."""
    study = Study(4)
    study.learn_last(seed)
    what = f"the last convolution alone, learned, seed {seed}"
    return [
        study.images(what, {LAST}),
        study.images(f"{what}, each step's mean error taken off", {LAST}, shift=study.mean_errors({LAST})),
    ]


def of_ranges(bits: int, estimator: Literal["min-max", "mse"]) -> list[Images]:
    """Return the images with every layer rounded to nearest, the first and the last one to eight bits."""
    study = Study(bits, 8, WeightRanges(estimator=estimator))
    what, names = f"every layer on {estimator} ranges, the first and the last at 8 bits", study.all_layers
    return [
        study.images(what, names),
        study.images(f"{what}, each step's mean error taken off", names, shift=study.mean_errors(names)),
    ]


def of_eight_bits(study: Study) -> list[Images]:
    """Return the images with various layers at eight bits."""
    return [
        study.images("every layer", study.all_layers),
        study.images("every layer but the last convolution", study.all_layers - {LAST}),
        study.images("the last convolution alone", {LAST}),
    ]


def by_step(study: Study) -> list[Step]:
    """Return the error of the noise estimate at each step."""
    found = []
    for step, timestep in enumerate(study.sampler.timesteps):
        last, rest = study.errors({LAST}, step), study.errors(study.all_layers - {LAST}, step)
        error = float(last.square().mean().sqrt())
        found.append(Step(int(timestep), error, _constant(last), _constant(rest), study.input_mean(step)))
    return found


def _constant(error: Tensor) -> float:
    return float(error.mean((0, 2, 3)).square().mean() / error.square().mean())


def write(path: Path, kind: type, rows: list[Images] | list[Step]) -> None:
    """Write rows as CSV, numbers to four digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(kind.__annotations__)
        for row in rows:
            writer.writerow(f"{each:.4g}" if isinstance(each, float) else each for each in vars(row).values())


if __name__ == "__main__":
    main()
