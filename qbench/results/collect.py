"""From artefacts to records."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbench.errors import DamagedArtefact
from qbench.metrics.metric import Metric
from qbench.plan import CellPlan
from qbench.records import (
    SCHEMA,
    CurveInfo,
    Figure,
    LatencyInfo,
    MetricInfo,
    ProfileInfo,
    Record,
    StageCost,
    StandinInfo,
    SuiteInfo,
)
from qbench.secrets import without_secrets
from qbench.stages.curve import FILE as CURVE_FILE
from qbench.stages.latency import FILE as LATENCY_FILE
from qbench.stages.profile import FILE as PROFILE_FILE
from qbench.stages.score import FILE as SCORE_FILE
from qbench.stages.score import WITHOUT_FILE, Score
from qbench.store import Artefact, Store
from qbench.suite import Suite

ELSEWHERE = "..."
"""What a record has in place of a value with a path, which is nobody else's business."""
DIGITS = 9
"""Of a figure without a group of images: differences of rows need more than the table shows."""


def record_path(results: Path, cell_id: str) -> Path:
    """Return where the record of a cell lies in a suite's results folder."""
    return results / "records" / f"{cell_id}.json"


def pending_record(suite: Suite, planned: CellPlan) -> Record:
    """Return the record of a cell that is planned and has no result yet."""
    cell = planned.cell
    return Record(
        suite=suite_info(suite, suite.positions[cell.key]),
        workload=cell.workload_label,
        method=None if cell.method is None else cell.method.name,
        label=cell.label,
        bits=str(cell.bits),
        boundary_bits=cell.boundary_bits,
        seed=cell.seed,
        samples=cell.samples,
        status="pending",
        description=cell.describe(),
        digest=cell.digest,
        baseline=cell.full_precision.digest,
        results=({} if planned.profile is None else {"profile": planned.profile.digest})
        | ({} if planned.curve is None else {"curve": planned.curve.digest})
        | {name: each.digest for name, each in planned.scores.items()},
        metrics={
            metric.name: _metric_info(metric, planned.scores.get(metric.name))
            for metric in cell.metrics
            if metric.name in planned.scores or metric.name in planned.missing
        },
        stands_in_for=_stands_in_for(suite, planned),
    )


def suite_info(suite: Suite, position: int) -> SuiteInfo:
    """Return what a record says of its suite: names, never folders."""
    return SuiteInfo(
        name=suite.name,
        title=suite.title,
        position=position,
        file=suite.file_name,
        standin=suite.is_standin,
        overrides={key: ELSEWHERE if _holds_path(value) else value for key, value in suite.overrides.items()},
        published=list(suite.published),
    )


def _holds_path(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_path, value.values()))
    if isinstance(value, list):
        return any(map(_holds_path, value))
    return isinstance(value, str) and os.sep in value


def _stands_in_for(suite: Suite, planned: CellPlan) -> StandinInfo | None:
    workload = planned.cell.workload
    for replaced, standin in suite.standins.items():
        if standin == planned.cell.workload_label:
            return StandinInfo(workload=replaced, metrics=dict(workload.standin_metrics))
    return None


def settled_record(
    pending: Record,
    planned: CellPlan,
    store: Store,
    failures: Mapping[str, str],
    git: dict[str, Any] | None,
) -> Record:
    """Return the record of a cell that is complete or has failed.

    Args:
        pending: its record so far.
        planned: its stages.
        store: where its artefacts are.
        failures: reasons by digest of the stages that failed.
        git: state of the checkout that holds the suite.

    Raises:
        DamagedArtefact: a figure's artefact is damaged.
    """
    figures, failed = {}, {name: without_secrets(reason) for name, reason in planned.missing.items()}
    for name, score in planned.scores.items():
        if score.digest in failures:
            failed[name] = failures[score.digest]
        else:
            figures[name] = read_figure(store.get(score.kind, score.digest))
    profile, curve = planned.profile, planned.curve
    if curve is not None and curve.digest in failures:
        failed["curve"] = failures[curve.digest]
    reasons = list(failed.values())
    if profile is not None and profile.digest in failures:
        reasons.append(failures[profile.digest])
    latency, latency_failure = _latency(planned, store, failures)
    costs, environment = [], {}
    for stage in planned.own_stages.values():
        try:
            manifest = store.manifest(stage.kind, stage.digest)
        except DamagedArtefact:  # removed or damaged since: the figures stand without its cost
            continue
        costs.append(
            StageCost(
                stage=stage.kind,
                digest=stage.digest,
                seconds=manifest.seconds,
                peak_memory_mb=manifest.peak_memory_mb,
            )
        )
        if stage.kind == "sample":
            environment = dict(manifest.environment)
    return pending.model_copy(
        update={
            "status": "failed" if reasons else "complete",
            "reason": reasons[0] if reasons else None,
            "figures": figures,
            "failures": failed,
            "profile": None
            if profile is None or profile.digest in failures
            else ProfileInfo(**_json(store.get(profile.kind, profile.digest), PROFILE_FILE)),
            "curve": None
            if curve is None or curve.digest in failures
            else CurveInfo(**_json(store.get(curve.kind, curve.digest), CURVE_FILE)),
            "schema_version": pending.schema_version if latency is None and latency_failure is None else SCHEMA,
            "latency": latency,
            "latency_failure": latency_failure,
            "stages": costs,
            "environment": environment,
            "git": git,
        }
    )


def _latency(planned: CellPlan, store: Store, failures: Mapping[str, str]) -> tuple[LatencyInfo | None, str | None]:
    """Return what was measured, or why nothing was; a cell is complete either way."""
    stage = planned.latency
    if stage is None:
        return None, None
    if stage.digest in failures:
        return None, failures[stage.digest]
    return LatencyInfo(**_json(store.get(stage.kind, stage.digest), LATENCY_FILE)), None


def read_figure(artefact: Artefact) -> Figure:
    """Return the figure that a stage ``score`` left.

    Raises:
        DamagedArtefact: it cannot be read.
    """
    without = [float(f"{each:.{DIGITS}g}") for each in _json(artefact, WITHOUT_FILE)]
    return Figure(**_json(artefact, SCORE_FILE), without=without)


def _metric_info(metric: Metric, score: Score | None) -> MetricInfo:
    extractor = None if score is None else getattr(score.shards[0], "extractor", None)
    reference = None if score is None else score.reference
    return MetricInfo.of(metric, extractor, reference=None if reference is None else reference.parameters())


def _json(artefact: Artefact, name: str) -> Any:
    try:
        found = json.loads(artefact.file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedArtefact(f"{artefact.file(name)} cannot be read ({error})") from error
    return found
