"""What differs between two artefacts: the settings behind them, and what is in their files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qbench.errors import DamagedArtefact, ResultsError
from qbench.results.differences.changes import ABSENT, Change, changes
from qbench.results.differences.tensors import FileChange, file_change
from qbench.store import Artefact, Manifest, Store
from qbench.store.artefact import read_artefact

INPUTS = "inputs"


@dataclass(frozen=True)
class ArtefactDifference:
    """What differs between two artefacts of one kind.

    Attributes:
        kind: the stage that made both.
        digests: of the two.
        settings: what differs in what they were made from, followed through their inputs as far as stores have them.
        files: what differs in their files.
        environment: what differs in how they were made, which does not make them differ.
    """

    kind: str
    digests: tuple[str, str]
    settings: tuple[Change, ...]
    files: tuple[FileChange, ...]
    environment: tuple[Change, ...]

    @property
    def is_same(self) -> bool:
        """Whether settings and content are the same."""
        return not self.settings and not self.files

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "same": self.is_same,
            "kind": self.kind,
            "digests": list(self.digests),
            "settings": [each.as_json() for each in self.settings],
            "files": [each.as_json() for each in self.files],
            "environment": [each.as_json() for each in self.environment],
        }


def artefact_difference(first: Artefact, second: Artefact, stores: tuple[Store, Store]) -> ArtefactDifference:
    """Compare two artefacts.

    Args:
        first: the one.
        second: the other, of the same kind.
        stores: where the inputs of each are looked up.

    Raises:
        DamagedArtefact: a file is not the one that was written.
        ResultsError: they are of two kinds, or a file cannot be read.
    """
    for each in (first, second):
        each.check()
    one, other = first.manifest, second.manifest
    if one.kind != other.kind:
        raise ResultsError(f"one artefact is of the kind {one.kind!r}, the other {other.kind!r}: compare two of a kind")
    return ArtefactDifference(
        one.kind,
        (one.digest, other.digest),
        tuple(_settings(one, other, stores, "", set())),
        tuple(file_changes(first, second)),
        tuple(changes(one.environment, other.environment)),
    )


def file_changes(first: Artefact, second: Artefact) -> Iterator[FileChange]:
    """Yield each file that differs; where the manifests have one digest for both, nothing is read.

    Raises:
        ResultsError: a file cannot be read.
    """
    files = first.manifest.files, second.manifest.files
    for name in sorted(files[0].keys() | files[1].keys()):
        if name not in files[1] or name not in files[0]:
            yield FileChange(name, only="second" if name in files[1] else "first")
        elif files[0][name] != files[1][name]:
            try:
                # Of other bytes and the same content: a file that was written by another version of a library.
                change = file_change(name, first.file(name), second.file(name))
            except ResultsError as error:
                raise ResultsError(f"{first.manifest.kind} {first.manifest.digest[:12]}: {error}") from None
            if change is not None:
                yield change


def find_artefact(digest: str, store: Store) -> Artefact | None:
    """Return the artefact of a digest, whatever its kind; None if the store has none that can be read."""
    for folder in sorted(store.root.glob(f"artefacts/*/{digest}")):
        try:
            return read_artefact(folder)
        except DamagedArtefact:
            return None
    return None


def _settings(
    first: Manifest, second: Manifest, stores: tuple[Store, Store], path: str, seen: set[tuple[str, str]]
) -> Iterator[Change]:
    """Yield what differs in two descriptions; of two inputs that differ, what differs in theirs."""
    own = [{key: value for key, value in each.description.items() if key != INPUTS} for each in (first, second)]
    yield from changes(own[0], own[1], path)
    inputs: list[Mapping[str, str]] = [each.description.get(INPUTS) or {} for each in (first, second)]
    for name in [*inputs[0], *(name for name in inputs[1] if name not in inputs[0])]:
        digests = inputs[0].get(name), inputs[1].get(name)
        inner = f"{path}.{INPUTS}.{name}" if path else f"{INPUTS}.{name}"
        if digests[0] == digests[1]:
            continue
        if digests[0] is None or digests[1] is None:
            yield Change(inner, digests[0] or ABSENT, digests[1] or ABSENT)
            continue
        if digests in seen:
            continue
        seen.add((digests[0], digests[1]))
        found = find_artefact(digests[0], stores[0]), find_artefact(digests[1], stores[1])
        if found[0] is None or found[1] is None:
            yield Change(inner, digests[0], digests[1])
        else:
            yield from _settings(found[0].manifest, found[1].manifest, stores, inner, seen)
