"""Stage ``sample``: one shard of a cell's images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from qbench.errors import StageError
from qbench.stages.captions import described
from qbench.stages.conversion import model_inputs
from qbench.stages.quantized import Quantized
from qbench.stages.stage import Stage, Work
from qbench.workload import Workload

FILE = "images.npy"
SHARD_SIZE = 250
"""Images in a shard. Part of the address: batches never reach over the end of a shard, so whoever computes it, in
whatever order, cuts the samples into the same batches."""


@dataclass(frozen=True)
class Sample(Stage):
    """Images start to stop - 1 of a cell, rounded to uint8.

    Attributes:
        workload: with its sampler.
        seed: of the noise.
        start: first sample index.
        stop: one behind the last.
        quantized: what is quantized.
    """

    workload: Workload
    seed: int
    start: int
    stop: int
    quantized: Quantized
    kind: ClassVar[str] = "sample"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.cell_title}, images {self.start} to {self.stop - 1}"

    @property
    def cell_title(self) -> str:
        """A few words for all shards together."""
        return f"{self.workload.name}, {self.quantized.title}, seed {self.seed}"

    @property
    def work(self) -> float:
        """Denoiser calls on one sample."""
        return float((self.stop - self.start) * self.workload.sampler.calls)

    @property
    def group(self) -> str:
        """One workload, with quantized activations or without."""
        return f"{self.workload.name} {'quantized' if self.quantized.activations else 'plain'} activations"

    def parameters(self) -> dict[str, Any]:
        """Workload with sampler, seed, range of samples, and their captions if there are any."""
        found = {"workload": self.workload.describe(), "seed": self.seed, "start": self.start, "stop": self.stop}
        return found | described(self.workload, self.workload.captions, range(self.start, self.stop))

    def inputs(self) -> Mapping[str, Stage]:
        """What is quantized, and the converted checkpoint, where there is one."""
        return {**self.quantized.inputs(), **model_inputs(self.workload)}

    def compute(self, work: Work) -> None:
        """Write uint8 images [count, channels, height, width].

        Raises:
            StageError: the denoiser's output or an image is not finite.
        """
        import numpy as np
        import torch

        from qbench.diffusion.codecs import to_uint8
        from qbench.diffusion.noise import Purpose
        from qbench.diffusion.samplers import NoiseSource, StepContext, make_sampler, sample
        from qbench.stages.batching import Batches
        from qbench.stages.denoiser import frozen_denoiser

        device = work.runtime.torch_device()
        denoiser = frozen_denoiser(self.workload, work, device)
        sampler = make_sampler(self.workload.schedule, self.workload.sampler)
        images = np.empty((self.stop - self.start, *self.workload.image_shape), np.uint8)

        @torch.inference_mode()
        def run(batch: range, go_on: Callable[[], None]) -> None:
            def observe(_: StepContext, x: torch.Tensor) -> None:
                go_on()
                work.report(len(x))

            indices = range(self.start + batch.start, self.start + batch.stop)
            noise = NoiseSource(self.workload.latent_shape, self.seed, Purpose.EVALUATION, indices)
            denoise = denoiser.conditioned(lambda: self.workload.captions(indices))
            latents = sample(denoise, sampler, noise, device, observe, correction=denoiser.correction)
            decoded = denoiser.codec.decode(latents)
            if not bool(decoded.isfinite().all()):
                raise StageError(f"decoded images {indices.start} to {indices.stop - 1} are not finite")
            images[batch.start : batch.stop] = to_uint8(decoded).cpu().numpy()

        # Compiled code keeps all cores busy by itself, and is not made for several threads that call it.
        together = not work.runtime.is_compiled
        Batches(work, f"sampling {self.workload.name}", device).run(len(images), run, together)
        work.made_with.update(work.runtime.of_sampling())
        np.save(work.folder / FILE, images, allow_pickle=False)


def shards(samples: int) -> list[range]:
    """Return the ranges of sample indices that shards of a cell cover."""
    return [range(start, min(start + SHARD_SIZE, samples)) for start in range(0, samples, SHARD_SIZE)]
