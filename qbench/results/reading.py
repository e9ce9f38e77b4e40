"""The records of one suite: what belongs together, and what does not."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import category

from qbench.cell import CellKey, cell_id
from qbench.errors import ResultsError
from qbench.records import MetricInfo, Record, read_record

NAME_BYTES = 200
"""A cell's name may have so many: files are named after it, and file systems take 255."""
LARGEST = 1e100
"""What is beyond it was never measured, and overflows where it is squared, summed or drawn."""


@dataclass(frozen=True)
class SuiteResults:
    """The records of one folder.

    Attributes:
        folder: where they lie.
        records: in the order of the suite.
        outdated: records that were compared with another full precision than the one in the folder, or sampled in
            another way than the others of their workload; they are named under the table and are no rows of it.
        unreadable: what is wrong with files that are no records of this suite, or not the only ones of their cell.
    """

    folder: Path
    records: tuple[Record, ...]
    outdated: tuple[Record, ...]
    unreadable: tuple[str, ...]

    @cached_property
    def metrics(self) -> dict[str, MetricInfo]:
        """What each column stands for; workloads may differ in the real images that they are compared with.

        Raises:
            ResultsError: two records mean different things by one id.
        """
        found: dict[str, MetricInfo] = {}
        source: dict[str, Record] = {}
        for record in self.records:
            for name, info in record.metrics.items():
                known = found.get(name)
                if name in record.failures and known is not None:
                    continue  # of a figure that failed, weights and reference may be unknown
                if known is None or (name in source and name in source[name].failures):
                    found[name], source[name] = info, record
                elif not _are_one(known, info, source[name].workload == record.workload):
                    raise ResultsError(
                        f"{_name(self.folder)}: {name!r} stands for two protocols, in {cell_id(source[name].key)} "
                        f"({_protocol(known)}) and in {cell_id(record.key)} ({_protocol(info)}); "
                        "run the suite again or move one of them to a folder of its own"
                    )
        return found


@dataclass(frozen=True)
class FoundRecords:
    """What lies in the folder ``records`` of a suite.

    Attributes:
        records: one for each cell, by the name of its file, in the order of the suite.
        problems: for each other file a sentence that begins with its place, by the name of the file.
    """

    records: Mapping[str, Record]
    problems: Mapping[str, str]


def read_suite_results(folder: Path) -> SuiteResults:
    """Read every record of a suite's folder; what cannot be read or used is reported and stops nothing."""
    found = read_records(folder)
    records = list(found.records.values())
    outdated = _outdated(records)
    current = [record for record, is_outdated in zip(records, outdated, strict=True) if not is_outdated]
    old = [record for record, is_outdated in zip(records, outdated, strict=True) if is_outdated]
    return SuiteResults(folder, tuple(current), tuple(old), tuple(found.problems.values()))


def read_records(folder: Path) -> FoundRecords:
    """Read every record of a suite's folder and choose one for each cell.

    Not chosen, and named as a problem, is a file that is no record, one of another suite than the folder's, and one
    of a cell that another file holds too: the file with the name that ``qbench run`` gives it stands, else the first
    by name. What is hidden or has another suffix than .json is nobody's record.

    Args:
        folder: of a suite; the records lie in ``records`` in it.
    """
    records: dict[str, Record] = {}
    problems: dict[str, str] = {}
    for path in sorted((folder / "records").glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            if not path.is_file():  # a pipe, say, which would keep a reader waiting for ever
                raise ResultsError(f"{path}: cannot be read as a record (it is no file)")
            records[path.name] = _sound(read_record(path), path)
        except ResultsError as error:
            problems[path.name] = without_folder(str(error), folder)
    for refused in (_of_other_suites, _duplicates):
        for name, problem in refused(records, folder).items():
            del records[name]
            problems[name] = f"{place(folder, name)}: {_one_line(problem)}"
    ordered = sorted(records.items(), key=lambda item: (item[1].suite.position, item[1].key))
    return FoundRecords(dict(ordered), dict(sorted(problems.items())))


def place(folder: Path, name: str) -> str:
    """Return how a report names a record: as seen from the folder of results, whichever machine that is on."""
    return _one_line(f"{_name(folder)}/records/{name}")


def without_folder(problem: str, folder: Path) -> str:
    """Return a problem in one line, its paths as seen from the folder of results.

    Args:
        problem: names files in the folder.
        folder: of a suite.
    """
    if folder == Path():
        return _one_line(f"{_name(folder)}/{problem}")
    return _one_line(problem.replace(f"{folder}{os.sep}", f"{_name(folder)}/"))


def _name(folder: Path) -> str:
    return Path(os.path.abspath(folder)).name


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _sound(record: Record, path: Path) -> Record:
    """Return a record that can be shown.

    Raises:
        ResultsError: it names no file that it could have, or holds a number that is none or that nothing can be.
    """
    length = len(cell_id(record.key).encode(errors="surrogatepass"))
    if length > NAME_BYTES:
        raise ResultsError(f"{path}: not a record (the name of its cell has {length} bytes, {NAME_BYTES} are the most)")
    for what, name in (("workload", record.workload), ("label", record.label), ("bits", record.bits)):
        if not name or name.startswith(".") or set(name) & set("/\\\0"):
            raise ResultsError(f"{path}: not a record ({what}: {name!r} cannot be a part of a file's name)")
        if not all(map(_is_character, name)):
            raise ResultsError(f"{path}: not a record ({what}: {name!r} holds what is no character)")
    for what, number in _numbers(record):
        if abs(number) > LARGEST:
            raise ResultsError(f"{path}: not a record ({what}: a number beyond {LARGEST:g})")
    if record.profile is not None and record.profile.size_mb <= 0:
        raise ResultsError(f"{path}: not a record (profile.size_mb: {record.profile.size_mb:g} is no size)")
    free = [record.environment, record.git, record.suite.overrides]
    try:
        json.dumps([*free, *(info.description for info in record.metrics.values())], allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: cannot be read as a record ({error})") from None
    return record


def _is_character(character: str) -> bool:
    """Whether it is neither a control character, nor half of a pair, nor one of those that Unicode keeps free."""
    code = ord(character)
    is_kept_free = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return not is_kept_free and category(character) not in ("Cc", "Cs")


def _numbers(record: Record) -> Iterator[tuple[str, float]]:
    """Yield what tables and pictures calculate with, and where it stands."""
    yield "samples", record.samples
    for name, figure in record.figures.items():
        difference = (figure.delta, figure.low, figure.high)
        yield from ((f"figures.{name}", number) for number in (figure.value, *difference) if number is not None)
        yield from ((f"figures.{name}.without", number) for number in figure.without)
    if record.curve is not None:
        curve = record.curve
        yield "curve.samples", curve.samples
        yield from (("curve", number) for number in (*curve.timestep, *curve.teacher_forced, *curve.free_running))
    if record.profile is not None:
        profile = record.profile
        sizes = (profile.size_mb, profile.coverage_macs, profile.coverage_parameters)
        yield from (("profile", number) for number in sizes)
    yield from (("stages", number) for cost in record.stages for number in (cost.seconds, cost.peak_memory_mb))


def _of_other_suites(records: Mapping[str, Record], folder: Path) -> dict[str, str]:
    """Return the records of another suite than the one that the folder is named after, or else than most are of."""
    counts = Counter(record.suite.name for record in records.values())
    if len(counts) < 2:
        return {}
    own = _name(folder) if _name(folder) in counts else min(counts, key=lambda name: (-counts[name], name))
    return {
        name: f"a record of the suite {record.suite.name!r} among those of {own!r}; move it to the folder of its suite"
        for name, record in records.items()
        if record.suite.name != own
    }


def _duplicates(records: Mapping[str, Record], folder: Path) -> dict[str, str]:
    """Return the records whose cell stands in another file too."""
    files: dict[CellKey, list[str]] = {}
    for name, record in records.items():
        files.setdefault(record.key, []).append(name)
    found = {}
    for key, names in files.items():
        canonical = f"{cell_id(key)}.json"
        kept = canonical if canonical in names else min(names)
        for name in names:
            if name != kept:
                same = records[name].figures == records[kept].figures
                found[name] = (
                    f"a duplicate of {place(folder, kept)}, which stands, "
                    f"{'with the same figures' if same else 'and their figures differ'}; remove one of them"
                )
    return found


def _outdated(records: Sequence[Record]) -> list[bool]:
    """Return which cannot stand in one table with the first record of their workload and their own full precision."""
    first: dict[str, Record] = {}
    baselines = {(record.workload, record.seed): record.digest for record in records if record.is_full_precision}
    return [
        baselines.get((record.workload, record.seed), record.baseline) != record.baseline
        or _sampled(first.setdefault(record.workload, record)) != _sampled(record)
        for record in records
    ]


def _sampled(record: Record) -> tuple[int, Any]:
    """Return what all seeds of a workload must share: the sample count, the model and its sampler."""
    return record.samples, record.description.get("workload")


def _are_one(first: MetricInfo, second: MetricInfo, of_one_workload: bool) -> bool:
    return first == second or (not of_one_workload and _without_reference(first) == _without_reference(second))


def _without_reference(info: MetricInfo) -> dict[str, Any]:
    description = {key: value for key, value in info.description.items() if key != "reference"}
    return {**dict(info), "description": description}


def _protocol(info: MetricInfo) -> str:
    """Return in words what decides a figure: the protocol, settings, weights and the real images."""
    extractor, reference, metric = (_mapping(info.description.get(key)) for key in ("extractor", "reference", "metric"))
    parts = [info.protocol]
    settings = metric.get("settings")
    parts += [f"settings {json.dumps(settings)}"] if settings else []
    weights = ", ".join(str(digest)[:12] for digest in _mapping(extractor.get("weights")).values())
    parts += [f"weights {weights}"] if weights else []
    if reference:
        content = str(reference.get("statistics") or reference.get("images") or "")[:12]
        parts.append(f"compared with {reference.get('name')} ({reference.get('samples')}, {content})")
    return ", ".join(parts)


def _mapping(found: Any) -> Mapping[str, Any]:
    """Return a part of a description, which somebody else may have written in another way."""
    return found if isinstance(found, Mapping) else {}
