"""What every stage has: a description that is its address, inputs, and the work itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qbench.identity import digest
from qbench.quant.data import DEFAULT_CACHE_BYTES
from qbench.store import Artefact

if TYPE_CHECKING:
    import torch

DEFAULT_BATCH_SIZE = 125


@dataclass(frozen=True)
class Runtime:
    """How a stage is computed; nothing of it enters a digest.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
        batch_size: images at a time.
        cache_bytes: how much of calibration's running state may be kept on the device.
    """

    device: str = "auto"
    batch_size: int = DEFAULT_BATCH_SIZE
    cache_bytes: int = DEFAULT_CACHE_BYTES

    def torch_device(self) -> torch.device:
        """Return the device to compute on."""
        from qbench.devices import torch_device

        return torch_device(self.device)


@dataclass(frozen=True)
class Work:
    """What a stage is given when it is computed.

    Attributes:
        inputs: the artefacts of its inputs, under the same names.
        folder: empty; what is written here becomes the artefact.
        runtime: device and batch size.
        report: to be called with an amount of work done, in units of ``Stage.work``.
    """

    inputs: Mapping[str, Artefact]
    folder: Path
    runtime: Runtime
    report: Callable[[float], None]


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
