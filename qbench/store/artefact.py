"""One artefact: a folder of files and the manifest that vouches for them."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from qbench.errors import DamagedArtefact, DataError
from qbench.identity import digest, file_digest

MANIFEST = "manifest.json"
SCHEMA = 1
SEAL = "seal"
"""Key of a digest of everything else in the manifest; one that an earlier version wrote has none."""
MOST = 1e15
"""Beyond it, nothing was ever measured."""


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
        if _digest(self.manifest.description) != self.manifest.digest:
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
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text)
        if r"\ud" in text.lower():  # half of a character, perhaps, which no record could be written with
            json.dumps(raw, ensure_ascii=False).encode("utf-8")
        seal = raw.pop(SEAL, None)
        manifest = Manifest(**raw)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedArtefact(f"{path} cannot be read ({error})") from error
    if manifest.schema != SCHEMA or manifest.digest != folder.name or not _is_sound(manifest):
        raise DamagedArtefact(f"{path} does not belong to this folder and version")
    if seal is not None and seal != _digest(raw):
        raise DamagedArtefact(f"{path} is not the file that was written")
    return Artefact(folder, manifest)


def _digest(value: Mapping[str, Any]) -> str | None:
    """Return the digest of what a file holds; None for NaN and the like, which nothing was ever written with."""
    try:
        return digest(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_sound(manifest: Manifest) -> bool:
    """Whether each value is of its kind, so that nobody stumbles over one later."""
    numbers = (manifest.seconds, manifest.work, manifest.peak_memory_mb)
    return (
        isinstance(manifest.kind, str)
        and isinstance(manifest.group, str)
        and isinstance(manifest.description, dict)
        and isinstance(manifest.environment, dict)
        and isinstance(manifest.files, dict)
        and all(map(_lies_within, manifest.files))
        and all(isinstance(each, str) for each in manifest.files.values())
        and all(type(each) in (int, float) and 0 <= each < MOST and math.isfinite(each) for each in numbers)
    )


def _lies_within(name: str) -> bool:
    """Whether a name is that of a file in the artefact's own folder."""
    path = PurePosixPath(name)
    return "\0" not in name and not path.is_absolute() and ".." not in path.parts
