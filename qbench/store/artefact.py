"""One artefact: a folder of files and the manifest that vouches for them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qbench.errors import DamagedArtefact, DataError
from qbench.identity import digest, file_digest

MANIFEST = "manifest.json"
SCHEMA = 1
SEAL = "seal"
"""Key of a digest of everything else in the manifest; one that an earlier version wrote has none."""


@dataclass(frozen=True)
class Manifest:
    """What an artefact is, what it was made from, and how.

    Attributes:
        kind: the stage that made it.
        digest: its address.
        group: stages of one kind and group cost about the same for each unit of work.
        description: the resolved description that the digest was taken of.
        files: SHA-256 of each file by name.
        seconds: time that computing it took.
        work: its amount in the stage's own unit, to estimate the time of others.
        peak_memory_mb: peak resident memory of the process by its end, decimal MB.
        environment: versions, hardware and runtime settings it was made with.
        schema: version of this layout.
    """

    kind: str
    digest: str
    group: str
    description: Mapping[str, Any]
    files: Mapping[str, str]
    seconds: float
    work: float
    peak_memory_mb: float
    environment: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Artefact:
    """An artefact in the store.

    Attributes:
        folder: where its files lie.
        manifest: what they are.
    """

    folder: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name

    def check(self) -> None:
        """Compare every file with the manifest, and the manifest with the address.

        Raises:
            DamagedArtefact: a file is missing, unreadable or another than was written, or the description is not the
                one that the address was taken of.
        """
        if digest(self.manifest.description) != self.manifest.digest:
            raise DamagedArtefact(f"{self.folder / MANIFEST} does not describe what its address says")
        for name, expected in self.manifest.files.items():
            path = self.folder / name
            try:
                actual = file_digest(path)
            except DataError as error:
                raise DamagedArtefact(str(error)) from error
            if actual != expected:
                raise DamagedArtefact(f"{path} is not the file that was written")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into an artefact's folder."""
    raw = json.loads(json.dumps(asdict(manifest)))
    text = json.dumps(raw | {SEAL: digest(raw)}, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_artefact(folder: Path) -> Artefact:
    """Read an artefact's manifest; its files are not looked at.

    Raises:
        DamagedArtefact: the manifest is missing, unreadable, of another layout, or not what was written.
    """
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        seal = raw.pop(SEAL, None)
        manifest = Manifest(**raw)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DamagedArtefact(f"{path} cannot be read ({error})") from error
    if manifest.schema != SCHEMA or manifest.digest != folder.name or not isinstance(manifest.files, dict):
        raise DamagedArtefact(f"{path} does not belong to this folder and version")
    if seal is not None and seal != digest(raw):
        raise DamagedArtefact(f"{path} is not the file that was written")
    return Artefact(folder, manifest)
