"""Tables of one suite: a pure function of its records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.cell import cell_id
from qbench.errors import ResultsError
from qbench.records import MetricInfo, Record, read_record, write_text
from qbench.results.curves import write_curve_pictures
from qbench.results.markdown import references, suite_markdown

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["workload", "method", "label", "bits", "boundary_bits", "seed"]
CURVE_COLUMNS = ["step_index", "timestep", "teacher_forced", "free_running"]


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


def write_suite_tables(folder: Path) -> SuiteResults:
    """Write a folder's tables, its pictures of curves and ``protocols.json``, and return its records.

    The tables are ``table.md``, ``table.csv``, ``curves.csv`` and ``costs.csv``.

    Raises:
        ResultsError: a column would hold two protocols, or the folder cannot be written.
    """
    results = read_suite_results(folder)
    metrics = results.metrics
    write_text(folder / "table.csv", _csv(table_frame(results.records, list(metrics))))
    write_text(folder / "curves.csv", _csv(curves_frame(results.records)))
    write_text(folder / "costs.csv", _csv(costs_frame(results.records)))
    write_text(
        folder / "protocols.json", json.dumps(_protocols(results.records, metrics), indent=1, sort_keys=True) + "\n"
    )
    write_curve_pictures(results.records, folder)
    write_text(folder / "table.md", suite_markdown(results.records, metrics, results.outdated))
    return results


def table_frame(records: Sequence[Record], metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row for each cell; it holds nothing that varies from run to run.

    Columns: the keys, ``status``, ``samples``, ``size_mb``, ``coverage_macs``, then for each metric its id and
    ``<id>_delta``, ``<id>_low``, ``<id>_high`` for the difference from full precision.
    """
    import pandas as pd

    rows = []
    for record in records:
        row = _keys(record)
        row["status"] = record.status
        row["samples"] = record.samples
        row["size_mb"] = record.profile.size_mb if record.profile else None
        row["coverage_macs"] = record.profile.coverage_macs if record.profile else None
        for name in metrics:
            figure = record.figures.get(name)
            row[name] = "failed" if name in record.failures else figure.value if figure else None
            row[f"{name}_delta"] = figure.delta if figure else None
            row[f"{name}_low"] = figure.low if figure else None
            row[f"{name}_high"] = figure.high if figure else None
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def curves_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row for each cell and step, and one more for what is behind the last step.

    Columns: the keys, ``step_index``, ``timestep``, ``teacher_forced``, ``free_running``; behind the last step there is
    only the error of x_0, ``free_running``.
    """
    import pandas as pd

    rows = []
    for record in records:
        if record.curve is None:
            continue
        steps = zip(record.curve.step_index, record.curve.timestep, record.curve.teacher_forced, strict=True)
        behind = (len(record.curve.step_index), None, None)
        for step, error in zip([*steps, behind], record.curve.free_running, strict=True):
            rows.append(_keys(record) | dict(zip(CURVE_COLUMNS, [*step, error], strict=True)))
    return pd.DataFrame(rows, columns=[*KEYS, *CURVE_COLUMNS], dtype=object)


def costs_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row for each cell: seconds for each kind of stage, peak memory, device."""
    import pandas as pd

    kinds = sorted({cost.stage for record in records for cost in record.stages})
    rows = []
    for record in records:
        row = _keys(record)
        for kind in kinds:
            seconds = [cost.seconds for cost in record.stages if cost.stage == kind]
            row[f"{kind}_seconds"] = round(sum(seconds), 3) if seconds else None
        row["peak_memory_mb"] = max((cost.peak_memory_mb for cost in record.stages), default=None)
        row["device"] = record.environment.get("device")
        row["threads"] = record.environment.get("threads")
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _keys(record: Record) -> dict[str, Any]:
    return dict(
        zip(
            KEYS,
            (record.workload, record.method, record.label, record.bits, record.boundary_bits, record.seed),
            strict=True,
        )
    )


def _csv(frame: pd.DataFrame) -> str:
    import pandas as pd

    # Column by column: DataFrame.map would guess types anew and print 8 as 8.0 beside an empty cell.
    written = {name: pd.Series([_number(value) for value in frame[name]], dtype=object) for name in frame}
    text: str = pd.DataFrame(written).to_csv(index=False, lineterminator="\n")
    return text


def _number(value: Any) -> Any:
    """Six significant digits: what lies behind them differs between processors."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _protocols(records: Sequence[Record], metrics: dict[str, MetricInfo]) -> dict[str, Any]:
    return {
        name: {**info.model_dump(mode="json"), "references": references(records, name)}
        for name, info in metrics.items()
    }


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
