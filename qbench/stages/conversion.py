"""Stage ``conversion``: an original checkpoint as the folder that its workload is loaded from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from qbench.stages.stage import Stage, Work
from qbench.store import Artefact
from qbench.workload import LoadedWorkload, Workload

INPUT = "model"
"""The name under which stages have it among their inputs."""


@dataclass(frozen=True)
class Conversion(Stage):
    """Weights of another layout, converted once for all stages that load them.

    Attributes:
        workload: whose weights.
    """

    workload: Workload
    kind: ClassVar[str] = "conversion"

    @property
    def title(self) -> str:
        """A few words."""
        return f"checkpoint of {self.workload.name}"

    @property
    def group(self) -> str:
        """One workload."""
        return self.workload.name

    def parameters(self) -> dict[str, Any]:
        """The weights and how they are converted; how the workload is sampled is of no matter."""
        return {
            "workload": self.workload.name,
            "package": self.workload.entry.package,
            "revision": self.workload.conversion_revision,
            "weights": dict(self.workload.weights()),
        }

    def compute(self, work: Work) -> None:
        """Write the folder.

        Raises:
            DataError: the checkpoint is missing, damaged or of another model.
        """
        self.workload.convert(work.folder)


def model_inputs(workload: Workload) -> dict[str, Stage]:
    """Return the input that a stage needs in order to load a workload: none where it is loaded as it is."""
    return {INPUT: Conversion(workload)} if workload.needs_conversion else {}


def load_workload(workload: Workload, inputs: Mapping[str, Artefact]) -> LoadedWorkload:
    """Load a workload, from its converted checkpoint where that is among a stage's inputs."""
    return workload.load_converted(inputs[INPUT].folder) if INPUT in inputs else workload.load()
