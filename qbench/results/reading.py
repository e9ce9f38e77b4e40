"""The records of one suite: what belongs together, and what does not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qbench.cell import cell_id
from qbench.errors import ResultsError
from qbench.records import MetricInfo, Record, read_record


@dataclass(frozen=True)
class SuiteResults:
    """The records of one folder.

    Attributes:
        folder: where they lie.
        records: in the order of the suite.
        outdated: records that were compared with another full precision than the one in the folder, or sampled in
            another way than the others of their workload; they are named under the table and are no rows of it.
        unreadable: what is wrong with files that are no records.
    """

    folder: Path
    records: tuple[Record, ...]
    outdated: tuple[Record, ...]
    unreadable: tuple[str, ...]

    @property
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
                        f"{self.folder}: {name!r} stands for two protocols, in {cell_id(source[name].key)} "
                        f"({_protocol(known)}) and in {cell_id(record.key)} ({_protocol(info)}); "
                        "run the suite again or move one of them to a folder of its own"
                    )
        return found


def read_suite_results(folder: Path) -> SuiteResults:
    """Read every record of a suite's folder; what cannot be read is reported and stops nothing."""
    records, unreadable = [], []
    for path in sorted((folder / "records").glob("*.json")):
        try:
            records.append(read_record(path))
        except ResultsError as error:
            unreadable.append(str(error))
    records.sort(key=lambda record: (record.suite.position, record.key))
    outdated = _outdated(records)
    current = [record for record in records if record not in outdated]
    return SuiteResults(folder, tuple(current), tuple(outdated), tuple(unreadable))


def _outdated(records: Sequence[Record]) -> list[Record]:
    """Return what cannot stand in one table with the first record of its workload and its own full precision."""
    first: dict[str, Record] = {}
    baselines = {(record.workload, record.seed): record.digest for record in records if record.is_full_precision}
    return [
        record
        for record in records
        if baselines.get((record.workload, record.seed), record.baseline) != record.baseline
        or _sampled(first.setdefault(record.workload, record)) != _sampled(record)
    ]


def _sampled(record: Record) -> tuple[int, Any]:
    """Return what all seeds of a workload must share: the sample count, the model and its sampler."""
    return record.samples, record.description.get("workload")


def _are_one(first: MetricInfo, second: MetricInfo, of_one_workload: bool) -> bool:
    if of_one_workload:
        return first == second
    return _without_reference(first) == _without_reference(second)


def _without_reference(info: MetricInfo) -> MetricInfo:
    return info.model_copy(update={"description": {**info.description, "reference": None}})


def _protocol(info: MetricInfo) -> str:
    """Return in words what decides a figure: the protocol, settings, weights and the real images."""
    extractor, reference, metric = (info.description.get(key) or {} for key in ("extractor", "reference", "metric"))
    parts = [info.protocol]
    settings = metric.get("settings") if isinstance(metric, dict) else None
    parts += [f"settings {json.dumps(settings)}"] if settings else []
    weights = ", ".join(digest[:12] for digest in extractor.get("weights", {}).values())
    parts += [f"weights {weights}"] if weights else []
    if reference:
        content = str(reference.get("statistics") or reference.get("images") or "")[:12]
        parts.append(f"compared with {reference.get('name')} ({reference.get('samples')}, {content})")
    return ", ".join(parts)
