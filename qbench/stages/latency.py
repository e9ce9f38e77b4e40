"""Stage ``latency``: seconds and memory of a denoiser call, in full precision and quantized, on the machine at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.bits import BitWidth
from qbench.environment import processor
from qbench.errors import StageError
from qbench.stages.captions import described
from qbench.stages.conversion import INPUT as CONVERTED
from qbench.stages.conversion import load_workload, model_inputs
from qbench.stages.quantized import Quantized
from qbench.stages.stage import Stage, Work
from qbench.workload import Workload

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from qbench.diffusion.samplers import StepContext
    from qbench.quant.census import Count
    from qbench.quant.integer import IntegerModel
    from qbench.stages.denoiser import Denoiser

FILE = "latency.json"
STEP = 3
"""The step whose x_t is used: the first ones are noise and little else, later ones take time to get to."""
CALL_MACS = {"cpu": 4e9, "cuda": 1e12, "mps": 1e11}
"""Multiply-accumulates that a call should have at most; one sample may have more."""
LARGEST_BATCH = {"cpu": 16}
"""Samples in a call at most, where it is not the batch size of sampling."""
INTEGER_BITS = 8
"""Of weights and activations: the only bits that CPUs have kernels for."""
Call = Callable[[], "Tensor"]


@dataclass(frozen=True)
class Latency(Stage):
    """How long a call of a denoiser takes and what memory it needs.

    It varies from run to run and from machine to machine, so it is kept apart from ``profile``, and no other stage
    rests on it. It is taken where it is first computed, and stays until it is removed from the store.

    Attributes:
        workload: with its sampler.
        bits: of the cell.
        boundary_bits: weight bits of the first and last layer, or None.
        seed: of the noise.
        quantized: what is quantized.
    """

    workload: Workload
    bits: BitWidth
    boundary_bits: int | None
    seed: int
    quantized: Quantized
    kind: ClassVar[str] = "latency"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.workload.name}, {self.quantized.title}"

    @property
    def group(self) -> str:
        """One workload, with quantized activations or without."""
        return f"{self.workload.name} {'quantized' if self.quantized.activations else 'plain'} activations"

    def parameters(self) -> dict[str, Any]:
        """Workload with sampler, bits, boundary_bits, seed, and the captions if there are any."""
        found = {
            "workload": self.workload.describe(),
            "bits": str(self.bits),
            "boundary_bits": self.boundary_bits,
            "seed": self.seed,
        }
        return found | described(self.workload, self.workload.captions, range(1))

    def inputs(self) -> Mapping[str, Stage]:
        """What is quantized, and the converted checkpoint, where there is one."""
        return {**self.quantized.alone.inputs(), **model_inputs(self.workload)}

    def compute(self, work: Work) -> None:
        """Write ``latency.json``, which is a ``LatencyInfo`` of records.

        Full precision and the quantized denoiser, as ``sample`` has it, are called in turn with one batch of x_t from
        full precision's own sampler; so is the quantized one in integers, where there are kernels for it.

        Raises:
            StageError: an output is not finite.
        """
        import torch

        from qbench.stages.denoiser import frozen, load_denoiser
        from qbench.stages.timing import in_turns, peak_bytes

        device = work.runtime.torch_device()
        with torch.inference_mode():
            census = self._census(work, device)
            batch = batch_size(sum(count.macs for count in census), device.type, work.runtime.rows)
            plain = {name: each for name, each in work.inputs.items() if name == CONVERTED}
            full_precision = frozen(load_denoiser(self.workload, device, plain), work)
            x, step = self._at_a_step(full_precision, batch)
            calls = {"full_precision": self._call(full_precision, x, step)}
            integer, reason = None, None
            if self.quantized.inputs():
                quantized = load_denoiser(self.workload, device, work.inputs, self.bits, self.boundary_bits)
                quantized = frozen(quantized, work)
                calls["quantized"] = self._call(quantized, x, step)
                if self.bits.weights == self.bits.activations == INTEGER_BITS:
                    integer, reason = _integers(quantized, calls["quantized"])
            if integer is not None:
                calls["int8"] = partial(_in_integers, integer, calls["quantized"])
            outputs = {name: _finite(name, call()) for name, call in calls.items()}
            peaks = {name: peak_bytes(call, device) for name, call in calls.items()}
            seconds, rounds = in_turns(calls, device)
        found: dict[str, Any] = {"batch": batch, "step_index": step.step_index, "rounds": rounds}
        found |= _machine(device, work.runtime.is_compiled) | self._sizes(work, full_precision.model.module)
        found |= {name: {"seconds": seconds[name], "peak_mb": peaks[name] / 1e6} for name in calls}
        if integer is not None:
            found["int8"] |= {"macs": integer.share(census)} | _difference(outputs["int8"], outputs["quantized"])
        found["int8_reason"] = reason
        (work.folder / FILE).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def _census(self, work: Work, device: torch.device) -> tuple[Count, ...]:
        import torch

        from qbench.diffusion.guidance import unconditional_context
        from qbench.quant.census import take_census

        plain = load_workload(self.workload, work.inputs)
        example = torch.zeros(1, *self.workload.latent_shape, device=device)
        context = None if plain.conditioning is None else unconditional_context(plain.conditioning, device)
        timestep = torch.zeros(1, dtype=torch.int64, device=device)
        return take_census(plain.module.to(device), plain.structure, example, timestep, context)

    def _at_a_step(self, denoiser: Denoiser, batch: int) -> tuple[Tensor, StepContext]:
        """Return what the denoiser is given at a step [batch, *latent shape], and the step."""
        from qbench.diffusion.noise import Purpose
        from qbench.diffusion.samplers import NoiseSource, make_sampler, sample

        seen: list[tuple[Tensor, StepContext]] = []
        sampler = make_sampler(self.workload.schedule, self.workload.sampler)
        noise = NoiseSource(self.workload.latent_shape, self.seed, Purpose.EVALUATION, range(batch))
        denoise = denoiser.conditioned(lambda: self._captions(batch))
        stop = min(STEP, len(sampler) - 1)
        sample(denoise, sampler, noise, denoiser.device, lambda step, x: seen.append((x, step)), stop)
        return seen[-1]

    def _call(self, denoiser: Denoiser, x: Tensor, step: StepContext) -> Call:
        return partial(denoiser.conditioned(lambda: self._captions(len(x))), x, step)

    def _captions(self, batch: int) -> list[str]:
        """Return the first caption for each row: what it says does not change the time."""
        return list(self.workload.captions(range(1))) * batch

    def _sizes(self, work: Work, module: nn.Module) -> dict[str, float]:
        """Return the bytes of the packed checkpoint and of the denoiser in memory.

        Where weights are simulated, their values lie in memory in float32, as in full precision.
        """
        from qbench.stages.denoiser import WEIGHTS

        resident = sum(each.numel() * each.element_size() for each in (*module.parameters(), *module.buffers()))
        packed = work.inputs["weights"].file(WEIGHTS).stat().st_size if "weights" in work.inputs else resident
        return {"packed_mb": packed / 1e6, "resident_mb": resident / 1e6}


def batch_size(macs: int, device_type: str, sampling: int) -> int:
    """Return how many samples a call has: a power of two, so that cells of one workload can be compared.

    Args:
        macs: multiply-accumulates of one sample.
        device_type: what it computes on.
        sampling: samples in a call when sampling.
    """
    most = min(sampling, LARGEST_BATCH.get(device_type, sampling))
    fitting = max(1, min(most, int(CALL_MACS.get(device_type, CALL_MACS["cpu"]) // macs)))
    return 1 << (fitting.bit_length() - 1)


def _integers(denoiser: Denoiser, call: Call) -> tuple[IntegerModel | None, str | None]:
    """Return the model in integers; where there are no kernels for it, None and why."""
    from qbench.quant.integer import IntegerModel, unavailable

    model = denoiser.model
    if denoiser.estimate is not None:
        return None, "its kernels are not compiled: leave --compile out to compare it with full precision"
    shapes: dict[str, Sequence[int]] = {}
    with model.observing(lambda name: lambda x: shapes.update({name: x.shape})):
        call()
    reason = unavailable(next(model.module.parameters()).device)
    if reason is not None:
        return None, reason
    integer = IntegerModel(model, shapes)
    if not integer.layers:
        name, why = next(iter(integer.simulated.items()))
        return None, f"there is no layer that it can compute: {name} {why}"
    return integer, None


def _in_integers(model: IntegerModel, call: Call) -> Tensor:
    with model.in_place():
        return call()


def _machine(device: torch.device, is_compiled: bool) -> dict[str, Any]:
    import torch

    from qbench.instructions import instructions

    return {
        "device": str(device),
        "device_name": processor() if device.type == "cpu" else _accelerator(device),
        "instructions": instructions() if device.type == "cpu" else "",
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "compiled": is_compiled,
    }


def _accelerator(device: torch.device) -> str | None:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _difference(found: Tensor, expected: Tensor) -> dict[str, float]:
    """Return how far integers are from their simulation: the relative squared error, and the largest difference."""
    error, norm = (found - expected).double(), expected.double().square().sum()
    squared = error.square().sum()
    relative = squared / norm if bool(norm) else squared
    return {"difference": float(relative), "largest_difference": float(error.abs().max())}


def _finite(name: str, output: Tensor) -> Tensor:
    if not bool(output.isfinite().all()):
        raise StageError(f"the denoiser's output is not finite ({name.replace('_', ' ')})")
    return output
