"""Stage ``profile``: size and coverage of a cell's denoiser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from qbench.bits import BitWidth
from qbench.stages.conversion import load_workload, model_inputs
from qbench.stages.quantized import Quantized
from qbench.stages.stage import Stage, Work
from qbench.workload import Workload

FILE = "profile.json"


@dataclass(frozen=True)
class Profile(Stage):
    """How large a denoiser is and how much of it is quantized.

    Attributes:
        workload: the workload.
        bits: of the cell.
        boundary_bits: weight bits of the first and last layer, or None.
        quantized: what is quantized.
    """

    workload: Workload
    bits: BitWidth
    boundary_bits: int | None
    quantized: Quantized
    kind: ClassVar[str] = "profile"

    @property
    def title(self) -> str:
        """A few words."""
        return f"{self.workload.name}, {self.quantized.title}"

    @property
    def group(self) -> str:
        """One workload."""
        return self.workload.name

    def parameters(self) -> dict[str, Any]:
        """Workload, bits, boundary_bits."""
        return {
            "workload": self.workload.describe(),
            "bits": str(self.bits),
            "boundary_bits": self.boundary_bits,
        }

    def inputs(self) -> Mapping[str, Stage]:
        """What is quantized, and the converted checkpoint, where there is one."""
        return {**self.quantized.alone.inputs(), **model_inputs(self.workload)}

    def compute(self, work: Work) -> None:
        """Write ``profile.json``.

        ``size_mb`` is the packed checkpoint's real bytes in decimal MB; where no weight is quantized, four bytes for
        each parameter and buffer.
        """
        import torch

        from qbench.diffusion.guidance import unconditional_context
        from qbench.quant.census import coverage, take_census
        from qbench.stages.denoiser import WEIGHTS, load_denoiser

        plain = load_workload(self.workload, work.inputs)
        example = torch.zeros(1, *self.workload.latent_shape)
        context = None if plain.conditioning is None else unconditional_context(plain.conditioning, example.device)
        census = take_census(plain.module, plain.structure, example, torch.zeros(1, dtype=torch.int64), context)
        model = load_denoiser(self.workload, torch.device("cpu"), work.inputs, self.bits, self.boundary_bits).model
        if "weights" in work.inputs:
            size = work.inputs["weights"].file(WEIGHTS).stat().st_size
        else:
            tensors = [*model.module.parameters(), *model.module.buffers()]
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        covered = coverage(model, census)
        profile = {
            "size_mb": size / 1e6,
            "coverage_macs": covered.macs,
            "coverage_parameters": covered.parameters,
            "left_out": list(covered.left_out),
        }
        (work.folder / FILE).write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
