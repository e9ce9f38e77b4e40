"""Stage ``trajectory``: x_t of the full-precision sampler at the steps a method asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from qbench.calibration import CalibrationRequest
from qbench.stages.stage import Stage, Work
from qbench.workload import Workload

FILE = "trajectory.safetensors"


@dataclass(frozen=True)
class Trajectory(Stage):
    """Calibration data: the same samples at every step of the request, on calibration noise.

    Attributes:
        workload: with its sampler.
        request: what the method asks for.
        seed: of the noise.
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
        """Rows of the data: samples at all steps that are taken."""
        return len(self.request.step_indices(self.workload.sampler.steps)) * self.request.per_step

    @property
    def work(self) -> float:
        """Denoiser calls on one sample."""
        return float(self.request.per_step * self.workload.sampler.steps)

    @property
    def group(self) -> str:
        """One workload."""
        return self.workload.name

    def parameters(self) -> dict[str, Any]:
        """Workload with sampler, request, seed."""
        return {
            "workload": self.workload.describe(),
            "request": self.request.model_dump(mode="json"),
            "seed": self.seed,
        }

    def compute(self, work: Work) -> None:
        """Write ``x`` [count, *latent shape], ``timestep`` and ``step_index`` [count], step by step."""
        import torch
        from safetensors.torch import save_file

        from qbench.diffusion.noise import Purpose
        from qbench.diffusion.samplers import DDIM, NoiseSource, StepContext, sample
        from qbench.stages.denoiser import load_denoiser

        device = work.runtime.torch_device()
        sampler = DDIM(self.workload.schedule, self.workload.sampler)
        wanted = self.request.step_indices(len(sampler))
        seen: dict[int, list[torch.Tensor]] = {index: [] for index in wanted}
        denoiser = load_denoiser(self.workload, device, {})
        with torch.inference_mode():
            for indices in batches(self.request.per_step, work.runtime.batch_size):
                noise = NoiseSource(self.workload.latent_shape, self.seed, Purpose.CALIBRATION, indices)

                def observe(step: StepContext, x: torch.Tensor) -> None:
                    work.report(len(x))
                    if step.step_index in seen:
                        seen[step.step_index].append(x.cpu())

                sample(denoiser, sampler, noise, device, observe)
        per_step = self.request.per_step
        index = torch.tensor(wanted).repeat_interleave(per_step)
        tensors = {
            "x": torch.cat([torch.cat(seen[step]) for step in wanted]),
            "step_index": index,
            "timestep": torch.from_numpy(sampler.timesteps)[index],
        }
        save_file(tensors, work.folder / FILE)


def batches(count: int, size: int) -> Iterator[range]:
    """Cut ``count`` rows into ranges of at most ``size``."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
