"""What every stage has: a description that is its address, inputs, and the work itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.errors import QbenchError
from qbench.identity import digest
from qbench.quant.data import DEFAULT_CACHE_BYTES
from qbench.stages.kept import Kept
from qbench.store import Artefact

if TYPE_CHECKING:
    import torch

DEFAULT_BATCH_SIZE = 125
"""Images at a time where nobody asks for another number and no accelerator could hold more."""


@dataclass(frozen=True)
class Runtime:
    """How a stage is computed; nothing of it enters a digest.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
        batch_size: images at a time; None leaves it to ``qbench.stages.batching``.
        cache_bytes: how much of calibration's running state may be kept on the device.
        tf32: whether matrix products and convolutions may be rounded to TF32 on the way; CUDA only.
        channels_last: whether sampling keeps the channels of a pixel together.
        compiled: whether ``torch.compile`` makes the denoiser faster for sampling.
        cuda_graphs: whether the compiled denoiser's kernels are started as one graph; CUDA only.
        stage_limit: seconds that computing a stage may take; what takes longer is ended with its process.
    """

    device: str = "auto"
    batch_size: int | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    tf32: bool = False
    channels_last: bool = False
    compiled: bool = False
    cuda_graphs: bool = False
    stage_limit: float | None = None

    @property
    def rows(self) -> int:
        """Rows at a time for what is not tried out on the device: as asked for, or the default."""
        return self.batch_size or DEFAULT_BATCH_SIZE

    @property
    def is_compiled(self) -> bool:
        """Whether the denoiser is compiled for sampling; CUDA graphs are made of compiled code."""
        return self.compiled or self.cuda_graphs

    def of_sampling(self) -> dict[str, bool]:
        """Return what of it changes how images are computed, by the words of a manifest; only what is not as usual."""
        chosen = {
            "channels_last": self.channels_last,
            "compiled": self.is_compiled,
            "cuda_graphs": self.cuda_graphs,
        }
        return {name: True for name, is_chosen in chosen.items() if is_chosen}

    def torch_device(self) -> torch.device:
        """Return the device to compute on.

        Raises:
            QbenchError: there is no such device, or it has not what is asked of it.
        """
        from qbench.devices import torch_device

        device = torch_device(self.device)
        for option, wanted in (("--tf32", self.tf32), ("--cuda-graphs", self.cuda_graphs)):
            if wanted and device.type != "cuda":
                raise QbenchError(f"{option} is for CUDA only, and the device here is {device}: leave it out")
        return device


def _unheard(_: str) -> None:
    """Let a sentence pass that nobody listens to."""


@dataclass(frozen=True)
class Work:
    """What a stage is given when it is computed.

    Attributes:
        inputs: the artefacts of its inputs, under the same names.
        folder: empty; what is written here becomes the artefact.
        runtime: device and batch size.
        report: to be called with an amount of work done, in units of ``Stage.work``.
        note: to be called with a sentence that the user should read while work goes on.
        kept: the denoiser that the stage before left behind; executors hand on that of their process.
        made_with: what the artefact's manifest is to say of how it was made, beyond hardware and versions; only what
            is not as usual.
    """

    inputs: Mapping[str, Artefact]
    folder: Path
    runtime: Runtime
    report: Callable[[float], None]
    note: Callable[[str], None] = _unheard
    kept: Kept = field(default_factory=Kept)
    made_with: dict[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """One unit of cached work.

    Attributes:
        kind: the word for it; names its folder in the store.
        revision: raised when what it computes changes.
        groups_are_alike: whether the time that one group takes says anything about another.
    """

    kind: ClassVar[str]
    revision: ClassVar[int] = 1
    groups_are_alike: ClassVar[bool] = True

    @property
    @abstractmethod
    def title(self) -> str:
        """A few words for progress and messages."""

    @property
    def work(self) -> float:
        """The amount of work, in a unit of its kind's own."""
        return 1.0

    @property
    def group(self) -> str:
        """Stages of one kind and group cost about the same for each unit of work."""
        return ""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return everything that decides the content, inputs aside."""

    def inputs(self) -> Mapping[str, Stage]:
        """Return the stages whose artefacts it reads."""
        return {}

    @abstractmethod
    def compute(self, work: Work) -> None:
        """Write the artefact's files into ``work.folder``.

        Raises:
            StageError: there is no honest result.
            DataError: something from outside is missing.
        """

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the digest is taken of."""
        return {
            "stage": self.kind,
            "revision": self.revision,
            "parameters": self.parameters(),
            "inputs": {name: stage.digest for name, stage in self.inputs().items()},
        }

    @cached_property
    def digest(self) -> str:
        """Its address in the store."""
        return digest(self.description)
