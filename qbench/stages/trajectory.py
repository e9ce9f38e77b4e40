"""Stage ``trajectory``: x_t of the full-precision sampler, or what a method asks for in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from qbench.calibration import CalibrationRequest
from qbench.errors import DataError, StageError
from qbench.stages.captions import described
from qbench.stages.conversion import model_inputs
from qbench.stages.stage import Stage, Work
from qbench.workload import ImageSet, Workload

FILE = "trajectory.safetensors"


@dataclass(frozen=True)
class Trajectory(Stage):
    """Calibration data, on calibration noise.

    Attributes:
        workload: with its sampler.
        request: what the method asks for.
        seed: of the noise and of the request's random choices.
    """

    workload: Workload
    request: CalibrationRequest
    seed: int
    kind: ClassVar[str] = "trajectory"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.workload.name}, seed {self.seed}, {self.size} calibration samples"

    @property
    def size(self) -> int:
        """Rows of the data."""
        return self.request.size(self.workload.sampler.calls)

    @property
    def work(self) -> float:
        """Steps that samples come to on their way; without a sampler, rows."""
        if self.request.source == "sampler":
            return float(sum(steps[-1] + 1 for steps in self.steps))
        return float(self.size)

    @property
    def group(self) -> str:
        """One workload, and what its data are made from."""
        name = self.workload.name
        return name if self.request.source == "sampler" else f"{name} from {self.request.source}"

    @cached_property
    def steps(self) -> tuple[list[int], ...]:
        """The steps that each sample is taken at, ascending, by sample index."""
        from qbench.diffusion.noise import Choice, uniform

        draws = uniform(seed=self.seed, choice=Choice.CALIBRATION_STEP, indices=range(self.request.samples))
        return tuple(self.request.steps_of(draw, self.workload.sampler.calls) for draw in draws.tolist())

    @property
    def images(self) -> ImageSet:
        """The real images to choose from.

        Raises:
            DataError: the workload has none, or fewer than the request has samples.
        """
        found = self.workload.calibration_images()
        if found.count < self.request.samples:
            raise DataError(
                f"the workload {self.workload.name!r} has {found.count} real images to calibrate on and the "
                f"calibration {self.request.kind!r} asks for {self.request.samples}: ask for fewer"
            )
        return found

    def parameters(self) -> dict[str, Any]:
        """Workload with sampler, request, seed, and the digests of real images and captions where they are used."""
        found = {
            "workload": self.workload.describe(),
            "request": self.request.model_dump(mode="json"),
            "seed": self.seed,
        }
        found |= described(self.workload, self.workload.calibration_captions, range(self.request.samples))
        return found | {"images": self.images.digest} if self.request.source == "images" else found

    def inputs(self) -> Mapping[str, Stage]:
        """The converted checkpoint, where there is one."""
        return model_inputs(self.workload)

    def compute(self, work: Work) -> None:
        """Write ``x`` [count, *latent shape], ``timestep`` and ``step_index`` [count], by step and then by sample.

        ``x`` is what the denoiser is given at the step, in the scale that it was trained with. Where samples have
        captions, the file holds their context too, as ``calibration_context`` has it.

        Raises:
            StageError: the denoiser's output or the data are not finite.
            DataError: real images are missing or not what they should be.
        """
        import torch
        from safetensors.torch import save_file

        from qbench.diffusion.samplers import make_sampler
        from qbench.stages.calibration_context import context_table
        from qbench.stages.calibration_inputs import INPUTS, Wanted
        from qbench.stages.denoiser import lay_out, load_denoiser

        denoiser = load_denoiser(self.workload, work.runtime.torch_device(), work.inputs)
        lay_out(denoiser, work)
        sampler = make_sampler(self.workload.schedule, self.workload.sampler)
        rows = sorted((step, sample) for sample, steps in enumerate(self.steps) for step in steps)
        with torch.inference_mode():
            x = INPUTS[self.request.source](Wanted(self, denoiser, sampler, rows), work)
        broken = ~x.flatten(1).isfinite().all(dim=1)
        if bool(broken.any()):
            step, sample = rows[int(broken.int().argmax())]
            raise StageError(
                f"calibration data are not finite, first at step {step} of {len(sampler)} (sample {sample})"
            )
        index = torch.tensor([step for step, _ in rows])
        tensors = {"x": x, "step_index": index, "timestep": torch.from_numpy(sampler.timesteps)[index]}
        if denoiser.conditioning is not None:
            captions = self.workload.calibration_captions(range(self.request.samples))
            of_rows = [captions[sample] for _, sample in rows]
            is_guided = denoiser.guidance_scale != 1.0
            with torch.inference_mode():
                tensors |= context_table(denoiser.conditioning, of_rows, is_guided, work.runtime.rows)
        save_file(tensors, work.folder / FILE)
