"""What is quantized in a cell, as stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qbench.stages.correction import Correction
from qbench.stages.quantize import Activations, Assignment, Weights
from qbench.stages.stage import Stage


@dataclass(frozen=True)
class Quantized:
    """What is quantized in a cell's denoiser; nothing in full precision.

    Attributes:
        weights: the quantized weights.
        activations: the grids of inputs.
        correction: what the sampler takes back of the denoiser's error.
    """

    weights: Weights | None = None
    activations: Activations | None = None
    correction: Correction | None = None

    @property
    def title(self) -> str:
        """A few words."""
        last = self.activations or self.weights
        return "full precision" if last is None else last.title

    @property
    def alone(self) -> Quantized:
        """The denoiser without what the sampler makes of it: what its size and its time depend on."""
        return replace(self, correction=None)

    def inputs(self) -> Mapping[str, Stage]:
        """Return the stages under the names that ``load_denoiser`` knows."""
        given: dict[str, Stage | None] = {
            "weights": self.weights,
            "activations": self.activations,
            "correction": self.correction,
        }
        return {name: stage for name, stage in given.items() if stage is not None}


def quantized(assignment: Assignment) -> Quantized:
    """Return the stages that quantize to an assignment's bits."""
    weights = Weights(assignment) if assignment.bits.quantizes_weights else None
    activations = Activations(assignment, weights) if assignment.bits.quantizes_activations else None
    correction = None
    if assignment.method.corrects and (weights or activations):
        correction = Correction(assignment, weights, activations)
    return Quantized(weights, activations, correction)
