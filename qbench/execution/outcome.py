"""What came of trying a stage, as plain data, so that it can be told by another process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Computed:
    """The stage is in the store now.

    Attributes:
        seconds: time that it took.
        notes: sentences for the user that were not told while it was computed.
    """

    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Appeared:
    """Another process has computed the stage meanwhile."""


@dataclass(frozen=True)
class Busy:
    """Another process computes the stage now."""


@dataclass(frozen=True)
class Damaged:
    """An input was not what had been written, was set aside, and has to be computed again first.

    Attributes:
        digest: the input's.
        reason: what is wrong with it.
    """

    digest: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """The stage has no result.

    Attributes:
        reason: why, for the user.
        details: where its traceback is, if it is a defect.
    """

    reason: str
    details: Path | None = None


Outcome = Computed | Appeared | Busy | Damaged | Failed
