"""The table of a suite in Markdown."""

import math
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from qbench.records import Figure, MetricInfo, Record

ARROW = {"lower": "↓", "higher": "↑"}
INCONCLUSIVE = "inconclusive"
EXTERNAL, ELSEWHERE = "external", "made elsewhere"
"""The method whose rows are marked, and how."""
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
    folder: str = "",
) -> str:
    """Return headline, one table for each workload, failures with their reasons, and what the columns stand for.

    Args:
        records: of one suite.
        metrics: what the columns stand for.
        outdated: records that are only named, since they do not belong to the full precision of the table.
        level: of the headline, 1 for a document of its own.
        folder: where the suite's files lie, as seen from the document; ends in a slash unless it is empty.
    """
    if not records:
        return "No records.\n"
    parts = [f"{'#' * level} {_text(records[0].suite.title)}"]
    ordered = sorted(records, key=lambda record: record.workload)
    for workload, group in groupby(ordered, key=lambda record: record.workload):
        of_workload = sorted(group, key=lambda record: (record.suite.position, record.key))
        parts += [f"{'#' * (level + 1)} {_text(workload)}", conditions(of_workload)]
        over_seeds = seeds_table(of_workload, metrics)
        if over_seeds:
            parts += ["Mean over seeds (lowest to highest):", over_seeds, "Each seed:"]
        parts.append(_table(of_workload, metrics))
        if any(record.curve is not None for record in of_workload):
            picture = f"{folder}media/{curves_file(workload)}"
            parts.append(f"Error against full precision at each step: [{picture}]({picture}).")
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
    return _round(figure.value), difference_text(figure)


def difference_text(figure: Figure) -> str:
    """Return how a figure's difference from full precision is printed, with its interval where there is one."""
    if figure.delta is None:
        return ""
    return _difference(figure.delta, figure.low, figure.high)


def is_conclusive(figure: Figure) -> bool:
    """Whether the interval tells on which side of zero the difference is."""
    return figure.low is None or figure.high is None or not figure.low <= 0 <= figure.high


def _table(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> str:
    used = [name for name in metrics if any(name in record.metrics for record in records)]
    header = ["method", "bits", *varying(records), "MB", "MACs quantized"]
    for name in used:
        header.append(f"{name} {ARROW[metrics[name].direction]}")
        if is_about_quality(metrics[name]):
            header.append("minus full precision")
        elif has_interval(records, name):
            header.append("95 %")
    with_interval = {name for name in used if is_about_quality(metrics[name]) or has_interval(records, name)}
    rows = [_row(record, used, metrics, varying(records), with_interval) for record in records]
    alignment = ["---"] * 2 + ["---:"] * (len(header) - 2)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, alignment, *rows])


def has_interval(records: Iterable[Record], name: str) -> bool:
    """Whether any row has an interval of a figure."""
    return any(record.figures[name].low is not None for record in records if name in record.figures)


def _row(
    record: Record,
    used: Iterable[str],
    metrics: Mapping[str, MetricInfo],
    columns: Sequence[str],
    with_interval: Container[str],
) -> list[str]:
    row = [_label(record), record.bits, *(VARYING[name](record) for name in columns)]
    if record.profile:
        row += [f"{record.profile.size_mb:.2f}", f"{100 * record.profile.coverage_macs:.1f} %"]
    else:
        row += ["-", "-"]
    for name in used:
        figure = record.figures.get(name)
        value, difference = figure_text(figure, name in record.failures, record.status == "pending")
        if not is_about_quality(metrics[name]):
            difference = difference.partition(" ")[2]
        elif figure and not is_conclusive(figure):
            difference += f" {INCONCLUSIVE}"
        row += [value, difference] if name in with_interval else [value]
    return row


def seeds_table(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> str:
    """Return a table with one row for what differs in its seed only; empty if there is nothing with several seeds.

    Seeds set calibration and sampling noise, so their spread shows what the intervals over images do not cover.
    """
    groups: dict[tuple[str, ...], list[Record]] = {}
    columns = [name for name in varying(records) if name != "seed"]
    for record in records:
        key = (_label(record), record.bits, *(VARYING[name](record) for name in columns))
        groups.setdefault(key, []).append(record)
    if all(len(group) == 1 for group in groups.values()):
        return ""
    used = [name for name in metrics if any(name in record.metrics for record in records)]
    header = ["method", "bits", *columns, "seeds"]
    for name in used:
        header.append(f"{name} {ARROW[metrics[name].direction]}")
        if is_about_quality(metrics[name]):
            header.append("minus full precision")
    rows = []
    for key, group in groups.items():
        row = [*key, str(len(group))]
        for name in used:
            figures = [record.figures[name] for record in group if name in record.figures]
            row.append(_spread([figure.value for figure in figures], len(group)))
            if is_about_quality(metrics[name]):
                deltas = [figure.delta for figure in figures if figure.delta is not None]
                row.append(_spread(deltas, len(group), sign="+"))
        rows.append(row)
    alignment = ["---"] * 2 + ["---:"] * (len(header) - 2)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, alignment, *rows])


def _spread(values: Sequence[float], expected: int, sign: str = "") -> str:
    """Return mean, lowest and highest with as many digits as tell them apart; says how many are missing."""
    if not values:
        return "-"
    mean, low, high = sum(values) / len(values), min(values), max(values)
    decimals = _decimals([mean, low, high])
    text = f"{mean:{sign}.{decimals}f}"
    if len(values) > 1:
        text += f" ({low:{sign}.{decimals}f} to {high:{sign}.{decimals}f})"
    return text if len(values) == expected else f"{text}, {len(values)} of {expected} seeds"


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
    found = _inner(record.description, "workload", "sampler") or _inner(
        record.description, "workload", "settings", "sampler"
    )
    if found is None:
        return "sampler not told"
    name, steps, eta = (found.get(key, "?") for key in ("name", "steps", "eta"))
    words = [f"{str(name).upper()} {steps} steps"]
    if found.get("spacing", "uniform") != "uniform":
        words.append(f"spaced {found['spacing']}")
    if name == "ddim":
        words.append(f"eta {eta:g}" if isinstance(eta, float) else f"eta {eta}")
    if found.get("guidance_scale", 1.0) != 1.0:
        words.append(f"guidance {found['guidance_scale']}")
    return _text(", ".join(words))


def _inner(found: Any, *keys: str) -> Mapping[str, Any] | None:
    """Return what lies under some keys of a description, one in the other; None if there is nothing."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _footnotes(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> str:
    lines = [_column(name, info, references(records, name)) for name, info in metrics.items()]
    if any(figure.low is not None for record in records for figure in record.figures.values()):
        unpaired = f" (not so for rows marked '{ELSEWHERE}' from other noise)" if _has_external(records) else ""
        lines.append(
            "- Brackets are 95 % intervals of the difference from full precision, over the images drawn, paired by "
            f"noise{unpaired} (delete-a-group jackknife, 20 groups), at this number of samples. They do not cover "
            f"calibration or training seeds. Where one holds zero, the difference is {INCONCLUSIVE}: its sign is not "
            "shown."
        )
    if len({record.seed for record in records}) > 1:
        lines.append("- Seeds set calibration and sampling noise; the trained model is the same for all.")
    if any(not is_about_quality(info) for info in metrics.values()):
        lines.append(
            "- Columns that end in -to-fp compare with the full-precision images of the same noise: they measure "
            "fidelity, not quality, and full precision has none."
        )
    if _has_external(records):
        lines.append(
            f"- Rows marked '{ELSEWHERE}' are images or weights of another program: bits are what their makers say, "
            "and where images come from other noise nothing is compared pair by pair."
        )
    lines.append(
        "- MACs quantized: share of the denoiser's multiply-accumulates, attention products included, whose operands "
        "have the bits that the cell asks for. Products of two activations count only where activations are quantized."
    )
    return "\n".join(lines)


def _has_external(records: Sequence[Record]) -> bool:
    return any(record.method == EXTERNAL for record in records)


def references(records: Sequence[Record], name: str) -> dict[str, Any]:
    """Return the real images that a metric compares with, by workload."""
    found: dict[str, Any] = {}
    for record in records:
        info = record.metrics.get(name)
        reference = info.description.get("reference") if info else None
        if reference:
            found.setdefault(record.workload, reference)
    return found


def _column(name: str, info: MetricInfo, compared: Mapping[str, Any]) -> str:
    """Return the footnote of a column: what it stands for, its weights, and what not to conclude from it."""
    parts = [_text(info.title), _text(info.protocol)]
    extractor = info.description.get("extractor") or {}
    sets = {workload: f"{each.get('name')} ({each.get('samples', 0):,})" for workload, each in compared.items()}
    if len(set(sets.values())) == 1:
        parts.append(_text(f"compared with {next(iter(sets.values()))}"))
    elif sets:
        parts.append(_text("compared with " + ", ".join(f"{each} on {workload}" for workload, each in sets.items())))
    weights = ", ".join(f"{file} {digest[:12]}" for file, digest in extractor.get("weights", {}).items())
    parts += [f"weights {_text(weights)}"] if weights else []
    parts += [_text(info.caveat)] if info.caveat else []
    return f"- **{_text(name)}** ({info.direction} is better): {'; '.join(parts)}."


def _difference(delta: float, low: float | None, high: float | None) -> str:
    """Three digits for the largest of the numbers, and as many behind the point for all."""
    bounds = [] if low is None or high is None else [low, high]
    decimals = _decimals([delta, *bounds])
    interval = f" [{', '.join(f'{bound:.{decimals}f}' for bound in bounds)}]" if bounds else ""
    return f"{delta:+.{decimals}f}{interval}"


def _decimals(values: Sequence[float]) -> int:
    """Return how many digits behind the point show three of the largest value."""
    largest = max(map(abs, values))
    return min(max(2 - math.floor(math.log10(largest)), 0), 8) if largest else 0


def _round(value: float) -> str:
    """Two digits behind the point as papers have it; three significant digits below 1."""
    if value == 0:
        return "0"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:#.3g}"


def curves_file(workload: str) -> str:
    """Return the name of the picture of a workload's curves."""
    return f"curves.{re.sub(r'[^A-Za-z0-9_+-]', '-', workload)}.svg"


def _label(record: Record) -> str:
    """Return how a row is named; what another program made is marked as such."""
    return _text(record.label) + (f" ({ELSEWHERE})" if record.method == EXTERNAL else "")


def _name(record: Record) -> str:
    return f"{record.label} {record.bits} on {record.workload}, seed {record.seed}"


def _text(text: str) -> str:
    """Escape what Markdown or HTML would read as more than text."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(re.sub(r"([|`*\[\]])", r"\\\1", escaped).split())
