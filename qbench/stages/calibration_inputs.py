"""The three ways to make the inputs that a denoiser is calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qbench.calibration import Source
from qbench.diffusion.codecs import from_uint8
from qbench.diffusion.noise import INITIAL, Choice, Purpose, uniform
from qbench.diffusion.samplers import Denoise, NoiseSource, Sampler, StepContext, sample
from qbench.errors import DataError
from qbench.stages.batching import Batches, cut
from qbench.stages.denoiser import Denoiser
from qbench.stages.stage import Work
from qbench.stages.trajectory import Trajectory


@dataclass(frozen=True)
class Wanted:
    """The rows that a request comes to.

    Attributes:
        trajectory: the stage.
        denoiser: the workload's, in full precision.
        sampler: the workload's.
        rows: step and sample of each row, in the order of the file.
    """

    trajectory: Trajectory
    denoiser: Denoiser
    sampler: Sampler
    rows: Sequence[tuple[int, int]]

    def noise(self, samples: Sequence[int]) -> NoiseSource:
        """Return the calibration noise of some samples."""
        shape = self.trajectory.workload.latent_shape
        return NoiseSource(shape, self.trajectory.seed, Purpose.CALIBRATION, samples)

    def denoise(self, samples: Sequence[int]) -> Denoise:
        """Return the denoiser for a batch of some samples."""
        workload, count = self.trajectory.workload, self.trajectory.request.samples

        def captions() -> list[str]:
            found = workload.calibration_captions(range(count))
            return [found[sample] for sample in samples]

        return self.denoiser.conditioned(captions)

    def empty(self) -> Tensor:
        """Return room for x_t of every row, float32 [rows, *latent shape], on the host."""
        return torch.empty((len(self.rows), *self.trajectory.workload.latent_shape))


def from_sampler(wanted: Wanted, work: Work) -> Tensor:
    """Return x_t [rows, *latent shape] of the full-precision sampler.

    Samples that end at about the same step share a batch, which ends with the last of them.
    """
    row_of = {place: row for row, place in enumerate(wanted.rows)}
    last = [steps[-1] for steps in wanted.trajectory.steps]
    order = sorted(range(len(last)), key=last.__getitem__)
    x = wanted.empty()

    @torch.inference_mode()
    def run(batch: range, _: Callable[[], None]) -> None:
        samples = order[batch.start : batch.stop]

        def observe(step: StepContext, now: Tensor) -> None:
            work.report(sum(last[each] >= step.step_index for each in samples))
            places = [(step.step_index, each) for each in samples]
            taken = [position for position, place in enumerate(places) if place in row_of]
            if taken:  # the host waits for the device here, which no other step should pay for
                x[[row_of[places[position]] for position in taken]] = now[taken].cpu()

        denoise, noise = wanted.denoise(samples), wanted.noise(samples)
        sample(denoise, wanted.sampler, noise, wanted.denoiser.device, observe, stop=last[samples[-1]])

    Batches(work, _name(wanted), wanted.denoiser.device).run(len(order), run)
    return x


def from_noise(wanted: Wanted, work: Work) -> Tensor:
    """Return standard normal noise [rows, *latent shape]: what the sampler starts from."""
    x = wanted.empty()
    for batch in cut(range(len(x)), work.runtime.rows):
        samples = [each for _, each in wanted.rows[batch.start : batch.stop]]
        x[batch.start : batch.stop] = wanted.noise(samples).at(INITIAL, x.device)
        work.report(len(batch))
    return x


def from_images(wanted: Wanted, work: Work) -> Tensor:
    """Return real images as latents [rows, *latent shape], with the noise of each row's step.

    Raises:
        DataError: the workload's images are not what it says they are.
    """
    device, codec = wanted.denoiser.device, wanted.denoiser.codec
    images = wanted.trajectory.images
    order = np.argsort(
        uniform(seed=wanted.trajectory.seed, choice=Choice.CALIBRATION_IMAGE, indices=range(images.count)),
        kind="stable",
    )
    x = wanted.empty()

    @torch.inference_mode()
    def run(batch: range, _: Callable[[], None]) -> None:
        steps, samples = zip(*wanted.rows[batch.start : batch.stop], strict=True)
        found = images.read(order[list(samples)].tolist())
        expected = (len(batch), *wanted.trajectory.workload.image_shape)
        if found.dtype != np.uint8 or found.shape != expected:
            raise DataError(f"{images.name}: expected uint8 images {expected}, found {found.dtype} {found.shape}")
        clean = codec.encode(from_uint8(torch.from_numpy(found)).to(device))
        noise = wanted.noise(samples).at(INITIAL, device)
        x[batch.start : batch.stop] = wanted.sampler.noised(clean, noise, steps).cpu()
        work.report(len(batch))

    Batches(work, _name(wanted), device).run(len(x), run)
    return x


def _name(wanted: Wanted) -> str:
    return f"calibration data of {wanted.trajectory.workload.name}"


INPUTS: Mapping[Source, Callable[[Wanted, Work], Tensor]] = {
    "sampler": from_sampler,
    "noise": from_noise,
    "images": from_images,
}
"""The function that makes x of each source."""
