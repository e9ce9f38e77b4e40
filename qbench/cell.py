"""A cell: one workload x method x bits x seed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from qbench.bits import FULL_PRECISION, BitWidth
from qbench.identity import digest
from qbench.method import Method
from qbench.metrics.metric import Metric
from qbench.workload import Workload

FULL_PRECISION_LABEL = "full-precision"
KEYS = ("workload", "method", "bits", "seed")
"""What cells are selected by, in ``exclude`` and ``--only``."""
CellKey = tuple[str, str, str, int]
"""Workload, method, bits, seed, as a table shows them."""


@dataclass(frozen=True)
class Cell:
    """What one row of a table is about.

    Attributes:
        workload: with its sampler.
        workload_label: how its rows are named.
        method: None in full precision.
        label: how its rows are named.
        bits: of the cell.
        boundary_bits: weight bits of the first and last layer; None in full precision and where there is no exception.
        seed: of calibration and sampling noise.
        samples: number of images.
        metrics: what is measured.
        latency: whether the time of its denoiser is taken; it decides no figure.
    """

    workload: Workload
    workload_label: str
    method: Method | None
    label: str
    bits: BitWidth
    boundary_bits: int | None
    seed: int
    samples: int
    metrics: tuple[Metric, ...]
    latency: bool = False

    @property
    def key(self) -> CellKey:
        """What tells its row from others: workload, method, bits, seed."""
        return (self.workload_label, self.label, str(self.bits), self.seed)

    @property
    def id(self) -> str:
        """The key as one word that is safe as a file name."""
        return cell_id(self.key)

    def describe(self) -> dict[str, Any]:
        """Return what decides its figures; labels do not."""
        return {
            "workload": self.workload.describe(),
            "method": None if self.method is None else self.method.describe(),
            "bits": str(self.bits),
            "boundary_bits": self.boundary_bits,
            "seed": self.seed,
            "samples": self.samples,
        }

    @cached_property
    def digest(self) -> str:
        """The digest of its description; metrics are not in it, each figure has its own."""
        return digest(self.describe())

    @cached_property
    def full_precision(self) -> "Cell":
        """The full-precision cell that it is compared with."""
        return replace(self, method=None, label=FULL_PRECISION_LABEL, bits=FULL_PRECISION, boundary_bits=None)

    def matches(self, selection: Mapping[str, Any]) -> bool:
        """Whether it agrees with every value given; values are compared as text."""
        return all(self.text(key) == str(value) for key, value in selection.items())

    def text(self, key: str) -> str:
        """Return the part of the key that one of ``KEYS`` names, as text."""
        return str(self.key[KEYS.index(key)])


def cell_id(key: CellKey) -> str:
    """Return a key as one word that is safe as a file name: labels have no character that is not."""
    workload, label, bits, seed = key
    return f"{workload}.{label}.{bits}.s{seed}"
