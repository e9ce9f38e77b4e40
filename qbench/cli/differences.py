"""Differences on the terminal."""

from collections.abc import Iterator, Sequence

from qbench.results.differences.artefacts import ArtefactDifference
from qbench.results.differences.cells import CellDifference, FigureChange
from qbench.results.differences.changes import Change, value_text
from qbench.results.differences.compare import AnyDifference
from qbench.results.differences.folders import FolderDifference
from qbench.results.differences.tensors import FileChange, TensorChange

SHORT_DIGEST = 12
FEW, MANY = 3, 20
"""How many settings of a cell, or names of cells, are listed among others; --json has all."""


def lines_of(found: AnyDifference) -> Iterator[str]:
    """Yield what a terminal shows; names that hold line breaks or commands to a terminal stay text."""
    if isinstance(found, CellDifference):
        lines = _cell_lines(found)
    elif isinstance(found, ArtefactDifference):
        lines = _artefact_lines(found)
    else:
        lines = _folder_lines(found)
    yield from map(_plain, lines)


def _cell_lines(found: CellDifference) -> Iterator[str]:
    yield f"{found.names[0]} -> {found.names[1]}: {'the same' if found.is_same else 'they differ'}"
    yield from _section("settings", found.settings)
    yield from _section("protocol", found.protocol)
    yield from _section("outcome", found.outcome)
    figures = [each for each in found.figures if each.verdict != "same"]
    if figures:
        yield "figures"
        yield from (f"  {_figure(each)}" for each in figures)
    same = len(found.figures) - len(figures)
    if same:
        yield f"figures that are the same: {same}"
    if found.stage is not None:
        digests = " -> ".join(digest[:SHORT_DIGEST] for digest in found.stage.digests)
        yield f"first stage whose artefacts differ: {found.stage.kind} {digests}"
        yield from (f"  {line}" for line in _file_lines(found.stage.file))
    elif found.stages_compared:
        yield f"artefacts that are the same: {found.stages_compared}"
    elif not found.is_same:
        yield "artefacts: none of both in the store"
    yield from _section("made with (does not make them differ)", found.environment)


def _artefact_lines(found: ArtefactDifference) -> Iterator[str]:
    digests = " -> ".join(digest[:SHORT_DIGEST] for digest in found.digests)
    yield f"{found.kind} {digests}: {'the same' if found.is_same else 'they differ'}"
    yield from _section("settings", found.settings)
    if not found.files:
        yield "files: the same"
    for each in found.files:
        yield from _file_lines(each)
    yield from _section("made with (does not make them differ)", found.environment)


def _folder_lines(found: FolderDifference) -> Iterator[str]:
    if found.is_unrelated:
        yield "no cell in common"
    for side, names in (("first", found.only_first), ("second", found.only_second)):
        yield from (f"only in the {side}: {name}" for name in names[:MANY])
        if len(names) > MANY:
            yield f"only in the {side}: {len(names) - MANY} more"
    for name, cell in found.differing.items():
        yield name
        changes = (*cell.settings, *cell.protocol, *cell.outcome)
        yield from (f"  {_change(each)}" for each in changes[:FEW])
        if len(changes) > FEW:
            yield f"  and {len(changes) - FEW} more settings"
        yield from (f"  {_figure(each)}" for each in cell.figures if each.is_different)
    yield (
        f"{found.same} cells the same, {len(found.differing)} differ, {len(found.only_first)} only in the first, "
        f"{len(found.only_second)} only in the second"
    )
    yield from (f"not compared: {problem}" for problem in found.problems)


def _section(title: str, changes: Sequence[Change]) -> Iterator[str]:
    if changes:
        yield title
        yield from (f"  {_change(each)}" for each in changes)


def _change(each: Change) -> str:
    return f"{each.path or 'all of it'}: {value_text(each.first)} -> {value_text(each.second)}"


def _figure(each: FigureChange) -> str:
    values = " -> ".join("none" if value is None else f"{value:.6g}" for value in (each.first, each.second))
    words = [f"{each.metric}: {values}"]
    found = each.difference
    if found is not None:
        interval = "" if found.low is None or found.high is None else f" [{found.low:+.3g}, {found.high:+.3g}]"
        words.append(f"({found.delta:+.3g}{interval})")
        has_interval = bool(interval)
    else:
        has_interval = True
    words.append(each.verdict if has_interval else f"{each.verdict} (there is no interval)")
    return " ".join(words)


def _file_lines(found: FileChange) -> Iterator[str]:
    if found.only:
        yield f"{found.name}: only in the {found.only}"
        return
    if found.tensor is None and not found.values:
        yield f"{found.name}: its bytes differ"
    if found.tensor is not None:
        yield f"{found.name}: {_tensor(found.tensor)}"
        if found.tensors > 1:
            yield f"  {found.differing} of {found.tensors} tensors differ, this is the first"
    for each in found.values[:FEW]:
        yield f"{found.name}: {_change(each)}"
    if len(found.values) > FEW:
        yield f"  and {len(found.values) - FEW} more values"


def _tensor(found: TensorChange) -> str:
    name = found.name or "the array"
    if not found.first or not found.second:
        return f"{name} is only in the {'first' if found.first else 'second'} ({found.first or found.second})"
    if found.first != found.second:
        return f"{name} is {found.first} -> {found.second}"
    size = "beyond any number" if found.largest is None else f"by {found.largest:.6g} at most"
    return f"{name} ({found.first}): {found.differing:,} of {found.elements:,} elements differ, {size}"


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
