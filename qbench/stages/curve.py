"""Stage ``curve``: how far a cell's denoiser and its samples are from full precision at each step of the sampler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.errors import StageError
from qbench.stages.captions import described
from qbench.stages.conversion import INPUT as CONVERTED
from qbench.stages.conversion import model_inputs
from qbench.stages.quantized import Quantized
from qbench.stages.stage import Stage, Work
from qbench.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.diffusion.samplers import Denoise
    from qbench.diffusion.step_correction import StepCorrection

FILE = "curve.json"
CURVE_SAMPLES = 32
"""Samples that a curve is taken from, the first of the cell; fewer where the cell has fewer."""


@dataclass(frozen=True)
class Curve(Stage):
    """The error of a quantized cell at each step, on the noise of its first images.

    Both errors are ||quantized - full precision||^2 / ||full precision||^2 of a sample, and their median over samples:

    - teacher-forced, of the estimate of the noise in x_t, both from full precision's own x_t: what one step adds;
    - free-running, of x_t in front of each step, each sampler with its own, and at last of x_0: what has gathered.

    A method's correction counts: it is the corrected estimate that is compared. Noise that a sampler adds is the same
    for both, so what a correction takes from it does not show.

    It is the median because x is not clipped on its way. A few samples run far out of the range of images, where it is
    not seen; in sums over samples, these would be all there is.

    Attributes:
        workload: with its sampler.
        seed: of the noise.
        samples: how many, from index 0.
        quantized: what is quantized.
    """

    workload: Workload
    seed: int
    samples: int
    quantized: Quantized
    kind: ClassVar[str] = "curve"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.workload.name}, {self.quantized.title}, seed {self.seed}"

    @property
    def work(self) -> float:
        """Steps of single samples; at each of them the denoiser is called three times."""
        return float(self.samples * self.workload.sampler.calls)

    @property
    def group(self) -> str:
        """One workload, with quantized activations or without."""
        return f"{self.workload.name} {'quantized' if self.quantized.activations else 'plain'} activations"

    def parameters(self) -> dict[str, Any]:
        """Workload with sampler, seed, number of samples, and their captions if there are any."""
        found = {"workload": self.workload.describe(), "seed": self.seed, "samples": self.samples}
        return found | described(self.workload, self.workload.captions, range(self.samples))

    def inputs(self) -> Mapping[str, Stage]:
        """What is quantized, and the converted checkpoint, where there is one."""
        return {**self.quantized.inputs(), **model_inputs(self.workload)}

    def compute(self, work: Work) -> None:
        """Write ``curve.json``.

        It holds ``samples``; ``step_index``, ``timestep`` and ``teacher_forced``, one value for each step; and
        ``free_running`` with one value more: the first is 0, the last is the error of x_0.

        Full precision is a second denoiser: a method may also change what is not rounded, such as biases, and the
        quantized one is as ``sample`` has it, frozen.

        Raises:
            StageError: the denoiser's output or an error is not finite.
        """
        import torch

        from qbench.diffusion.noise import Purpose
        from qbench.diffusion.samplers import NoiseSource, make_sampler
        from qbench.stages.batching import Batches
        from qbench.stages.denoiser import lay_out, load_denoiser
        from qbench.stages.lockstep import Squares, lockstep

        device = work.runtime.torch_device()
        plain = {name: each for name, each in work.inputs.items() if name == CONVERTED}
        full_precision, quantized = (load_denoiser(self.workload, device, inputs) for inputs in (plain, work.inputs))
        quantized.model.freeze()
        for denoiser in (full_precision, quantized):
            lay_out(denoiser, work)
        sampler = make_sampler(self.workload.schedule, self.workload.sampler)

        compared: dict[int, Squares] = {}

        @torch.inference_mode()
        def compare(batch: range, _: Callable[[], None]) -> None:
            noise = NoiseSource(self.workload.latent_shape, self.seed, Purpose.EVALUATION, batch)
            full, rounded = (
                each.conditioned(lambda: self.workload.captions(batch)) for each in (full_precision, quantized)
            )
            rounded = _corrected(rounded, quantized.correction)
            compared[batch.start] = lockstep(full, rounded, sampler, noise, device, work.report)

        Batches(work, f"the curve of {self.workload.name}", device).run(self.samples, compare)
        parts = [compared[start] for start in sorted(compared)]
        curve = {
            "samples": self.samples,
            "step_index": list(range(len(sampler))),
            "timestep": sampler.timesteps.tolist(),
            "teacher_forced": _medians([each.teacher_forced for each in parts], "teacher-forced", len(sampler)),
            "free_running": _medians([each.free_running for each in parts], "free-running", len(sampler)),
        }
        (work.folder / FILE).write_text(json.dumps(curve, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _medians(squares: Sequence[Tensor], name: str, steps: int) -> list[float]:
    """Return the error at each place from the squared norms of batches of samples, each [places, 2, samples]."""
    import torch

    error, norm = torch.cat(list(squares), dim=2).double().unbind(dim=1)
    relative = error / norm
    broken = (~(relative.isfinite() & norm.isfinite())).nonzero()
    if len(broken):
        place, sample = broken[0].tolist()
        where = f"at step {place} of {steps}" if place < steps else f"behind the last of {steps} steps"
        ratio = f"{float(error[place, sample]):g} / {float(norm[place, sample]):g}"
        raise StageError(f"the {name} error is not finite, first {where} (sample {sample}: {ratio})")
    found: list[float] = relative.quantile(0.5, dim=1).tolist()
    return found


def _corrected(denoise: Denoise, correction: StepCorrection | None) -> Denoise:
    if correction is None:
        return denoise
    return lambda x, step: correction.corrected(denoise(x, step), step.step_index)
