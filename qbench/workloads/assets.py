"""What a workload or a metric needs and the package does not hold: checkpoints, weights, reference sets.

Nothing here touches the network but ``Asset.fetch``, which ``qbench fetch`` calls and nobody else: planning and running
look at this disk only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qbench.errors import DataError
from qbench.workloads.address import Address
from qbench.workloads.disk_space import size_text
from qbench.workloads.download import Report
from qbench.workloads.hub_folder import HubFolder
from qbench.workloads.places import Home, downloads_folder

__all__ = ["Address", "Asset", "ByHand", "Home", "HubFolder", "Source", "downloads_folder"]

FETCH = "`qbench fetch SUITE`"
FETCH_FOR_METRICS = "`qbench fetch SUITE`, or `qbench fetch --metrics ID` without a suite,"


class Source(Protocol):
    """Where an asset comes from. Two assets with equal sources are one."""

    @property
    def origin(self) -> str:
        """Where from, in words."""

    @property
    def folder(self) -> Path | None:
        """The folder that it comes to, for the room there; it need not exist."""

    def find(self) -> Path | None:
        """Return where it is, if it is there and whole, without touching the network."""

    def complaint(self) -> str:
        """Return what is wrong when nothing is found."""

    def fetch(self, report: Report) -> str:
        """Make it be there, and return what a user should know of it, empty if nothing.

        Raises:
            DataError: it cannot be fetched.
        """


@dataclass(frozen=True)
class ByHand:
    """Something that nobody may or can download for the user.

    Attributes:
        path: where it is looked for; None if the suite names no place.
        how: what to put there and where it comes from, in one clause.
    """

    path: Path | None
    how: str

    @property
    def origin(self) -> str:
        """That it is the user's to bring."""
        return "by hand"

    @property
    def folder(self) -> Path | None:
        """None: nothing is downloaded."""
        return None

    def find(self) -> Path | None:
        """Return the path if something is there."""
        return self.path if self.path is not None and self.path.exists() else None

    def complaint(self) -> str:
        """Return what is missing and how it comes there."""
        return f"{self.path} is missing: {self.how}" if self.path is not None else f"no place is named: {self.how}"

    def fetch(self, report: Report) -> str:
        """Refuse.

        Raises:
            DataError: it is not there.
        """
        if self.find() is None:
            raise DataError(self.complaint())
        return ""


@dataclass(frozen=True)
class Asset:
    """Something that must be on this disk.

    Attributes:
        name: what it is, for people.
        source: where it comes from.
        size: about how many bytes are downloaded; None if nobody knows.
    """

    name: str
    source: Source
    size: int | None = None

    @property
    def is_fetchable(self) -> bool:
        """Whether ``qbench fetch`` can get it."""
        return not isinstance(self.source, ByHand)

    def find(self) -> Path | None:
        """Return where it is, if it is there and whole: a file or a folder. Never touches the network."""
        return self.source.find()

    def require(self, command: str = FETCH) -> Path:
        """Return where it is.

        Args:
            command: what gets it.

        Raises:
            DataError: it is not there; the message says how it comes there.
        """
        found = self.find()
        if found is None:
            raise DataError(self.lack(command))
        return found

    def lack(self, command: str = FETCH) -> str:
        """Return what is said when it is not there."""
        said = f"{self.name}: {self.source.complaint()}"
        if not self.is_fetchable:
            return said
        return f"{said}; {command} gets it from {self.source.origin} ({size_text(self.size)})"

    def fetch(self, report: Report) -> str:
        """Make it be there, and return what a user should know of it; the one function here that uses the network.

        Raises:
            DataError: it cannot be fetched.
        """
        try:
            return self.source.fetch(report)
        except OSError as error:
            where = f"{error.filename} " if error.filename else ""
            raise DataError(f"{self.name} cannot be fetched: {where}{error.strerror or error}") from error
