"""The table of a suite in Markdown."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from qbench.records import Figure, MetricInfo, Record

ARROW = {"lower": "↓", "higher": "↑"}
BOUNDARY = "first, last"
VARYING: dict[str, Callable[[Record], str]] = {
    "seed": lambda record: str(record.seed),
    BOUNDARY: lambda record: "-" if record.boundary_bits is None else f"W{record.boundary_bits}",
}
"""Columns that a table has only where its rows differ in them."""


def suite_markdown(
    records: Sequence[Record],
    metrics: Mapping[str, MetricInfo],
    outdated: Sequence[Record] = (),
    level: int = 1,
) -> str:
    """Return headline, one table for each workload, failures with their reasons, and what the columns stand for.

    Args:
        records: of one suite.
        metrics: what the columns stand for.
        outdated: records that are only named, since they do not belong to the full precision of the table.
        level: of the headline, 1 for a document of its own.
    """
    if not records:
        return "No records.\n"
    parts = [f"{'#' * level} {_text(records[0].suite.title)}"]
    ordered = sorted(records, key=lambda record: record.workload)
    for workload, group in groupby(ordered, key=lambda record: record.workload):
        of_workload = sorted(group, key=lambda record: (record.suite.position, record.key))
        parts += [f"{'#' * (level + 1)} {_text(workload)}", conditions(of_workload), _table(of_workload, metrics)]
    reasons = [f"- {_text(_name(record))}: {_text(record.reason or '')}" for record in records if record.reason]
    if reasons:
        parts.append("Failed:\n\n" + "\n".join(reasons))
    if outdated:
        names = ", ".join(_text(_name(record)) for record in outdated)
        parts.append(
            "Not shown, sampled in another way than this table or compared with another full precision; "
            f"run the suite again: {names}."
        )
    parts.append(_footnotes(records, metrics))
    return "\n\n".join(parts) + "\n"


def figure_text(figure: Figure | None, failed: bool, pending: bool) -> tuple[str, str]:
    """Return how a figure and its difference from full precision are printed."""
    if failed:
        return "failed", ""
    if figure is None:
        return ("not run" if pending else "-"), ""
    if figure.delta is None:
        return _round(figure.value), ""
    return _round(figure.value), _difference(figure.delta, figure.low, figure.high)


def _table(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> str:
    used = [name for name in metrics if any(name in record.metrics for record in records)]
    header = ["method", "bits", *varying(records), "MB", "MACs quantized"]
    for name in used:
        header.append(f"{name} {ARROW[metrics[name].direction]}")
        if is_about_quality(metrics[name]):
            header.append("minus full precision")
        else:
            header.append("95 %")
    rows = [_row(record, used, metrics, varying(records)) for record in records]
    alignment = ["---"] * 2 + ["---:"] * (len(header) - 2)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, alignment, *rows])


def _row(record: Record, used: Iterable[str], metrics: Mapping[str, MetricInfo], columns: Sequence[str]) -> list[str]:
    row = [_text(record.label), record.bits, *(VARYING[name](record) for name in columns)]
    if record.profile:
        row += [f"{record.profile.size_mb:.2f}", f"{100 * record.profile.coverage_macs:.1f} %"]
    else:
        row += ["-", "-"]
    for name in used:
        value, difference = figure_text(record.figures.get(name), name in record.failures, record.status == "pending")
        if not is_about_quality(metrics[name]):
            difference = difference.partition(" ")[2]
        row += [value, difference]
    return row


def varying(records: Sequence[Record]) -> list[str]:
    """Return which columns of ``VARYING`` tell rows apart; what is the same everywhere stands above the table."""
    boundary = {VARYING[BOUNDARY](record) for record in records if _quantizes_weights(record)}
    several_seeds = len({record.seed for record in records}) > 1
    return [*(["seed"] if several_seeds else []), *([BOUNDARY] if len(boundary) > 1 else [])]


def _quantizes_weights(record: Record) -> bool:
    return not record.bits.startswith("W32")


def is_about_quality(info: MetricInfo) -> bool:
    """Whether full precision has a figure of its own to subtract."""
    return not info.against.startswith("full-precision")


def conditions(records: Sequence[Record]) -> str:
    """Return in one sentence what rows of a workload have in common: samples, sampler, seeds, exceptions."""
    samplers = {_sampler(record) for record in records}
    samples = sorted({record.samples for record in records})
    boundary = sorted({record.boundary_bits for record in records if record.boundary_bits is not None})
    seeds = sorted({record.seed for record in records})
    sentences = [
        f"{' and '.join(str(count) for count in samples)} samples",
        " and ".join(sorted(samplers)),
        f"seed {', '.join(map(str, seeds))}",
        _boundary_sentence(records, boundary),
    ]
    return "; ".join(sentences) + "."


def _boundary_sentence(records: Sequence[Record], boundary: Sequence[int]) -> str:
    if BOUNDARY in varying(records):
        return "weights of the first and last layer differ between rows"
    if boundary:
        return f"weights of the first and last layer at {boundary[0]} bits"
    return "no exception for the first and last layer"


def _sampler(record: Record) -> str:
    found: Any = record.description
    for key in ("workload", "settings", "sampler"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return "sampler not told"
    name, steps, eta = (found.get(key, "?") for key in ("name", "steps", "eta"))
    eta = f"{eta:g}" if isinstance(eta, float) else eta
    return _text(f"{str(name).upper()} {steps} steps, eta {eta}")


def _footnotes(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> str:
    lines = [
        f"- **{_text(name)}** ({info.direction} is better): {_text(info.title)}; {_text(info.protocol)}."
        for name, info in metrics.items()
    ]
    if any(figure.low is not None for record in records for figure in record.figures.values()):
        lines.append(
            "- Brackets are 95 % intervals over the drawing of images, paired by noise (delete-a-group jackknife, 20 "
            "groups), at this number of samples. They do not cover calibration or training seeds."
        )
    lines.append(
        "- MACs quantized: share of the denoiser's multiply-accumulates, attention products included, whose operands "
        "have the bits that the cell asks for. Products of two activations count only where activations are quantized."
    )
    return "\n".join(lines)


def _difference(delta: float, low: float | None, high: float | None) -> str:
    """Three digits for the largest of the numbers, and as many behind the point for all."""
    bounds = [] if low is None or high is None else [low, high]
    largest = max(map(abs, [delta, *bounds]))
    decimals = min(max(2 - math.floor(math.log10(largest)), 0), 8) if largest else 0
    interval = f" [{', '.join(f'{bound:.{decimals}f}' for bound in bounds)}]" if bounds else ""
    return f"{delta:+.{decimals}f}{interval}"


def _round(value: float) -> str:
    """Two digits behind the point as papers have it; three significant digits below 1."""
    if value == 0:
        return "0"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:#.3g}"


def _name(record: Record) -> str:
    return f"{record.label} {record.bits} on {record.workload}, seed {record.seed}"


def _text(text: str) -> str:
    """Escape what Markdown or HTML would read as more than text."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(re.sub(r"([|`*\[\]])", r"\\\1", escaped).split())
