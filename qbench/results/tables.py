"""Tables of one suite: a pure function of its records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.records import MetricInfo, Record, write_text
from qbench.results.curves import write_curve_pictures
from qbench.results.markdown import references, suite_markdown
from qbench.results.pictures import write_sheets
from qbench.results.reading import SuiteResults, read_suite_results

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["workload", "method", "label", "bits", "boundary_bits", "seed"]
CURVE_COLUMNS = ["step_index", "timestep", "teacher_forced", "free_running"]


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
    problems = write_sheets(results.records, folder)
    write_text(folder / "table.md", suite_markdown(results.records, metrics, results.outdated))
    return replace(results, unreadable=(*results.unreadable, *problems))


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
