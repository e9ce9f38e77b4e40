"""How records are said in words: numbers, names, conditions. Plain text, which whoever prints it has to escape."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from qbench.records import Figure, MetricInfo, Record

ARROW = {"lower": "↓", "higher": "↑"}
INCONCLUSIVE = "inconclusive"
EXTERNAL, ELSEWHERE = "external", "made elsewhere"
"""The method whose rows are marked, and how."""
BOUNDARY = "first, last"
VARYING: dict[str, Callable[[Record], str]] = {
    "seed": lambda record: str(record.seed),
    BOUNDARY: lambda record: boundary_text(record.boundary_bits),
}
"""Columns that a table has only where its rows differ in them."""


def figure_text(figure: Figure | None, failed: bool, pending: bool) -> tuple[str, str]:
    """Return how a figure and its difference from full precision are printed."""
    if failed:
        return "failed", ""
    if figure is None:
        return ("not run" if pending else "-"), ""
    return value_text(figure.value), difference_text(figure)


def difference_text(figure: Figure) -> str:
    """Return how a figure's difference from full precision is printed, with its interval where there is one."""
    return "" if figure.delta is None else change_text(figure.delta, figure.low, figure.high)


def change_text(delta: float, low: float | None, high: float | None) -> str:
    """Return a difference and its interval: three digits for the largest of the numbers, all to the same place."""
    bounds = [] if low is None or high is None else [low, high]
    decimals = decimals_for([delta, *bounds])
    interval = f" [{', '.join(f'{bound:.{decimals}f}' for bound in bounds)}]" if bounds else ""
    return f"{delta:+.{decimals}f}{interval}"


def value_text(value: float) -> str:
    """Return a figure with two digits behind the point as papers have it; three significant digits below 1."""
    if value == 0:
        return "0"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:#.3g}"


def spread_text(
    values: Sequence[float], expected: int, sign: str = "", interval: tuple[float, float] | None = None
) -> str:
    """Return mean, its interval, lowest and highest with three digits of the largest; it says how many are missing.

    Args:
        values: of the seeds that have one.
        expected: how many seeds there are.
        sign: "+" to print the sign always.
        interval: of the mean; None if there is none.
    """
    return "".join(spread_parts(values, expected, sign, interval)) if values else "-"


def spread_parts(
    values: Sequence[float], expected: int, sign: str = "", interval: tuple[float, float] | None = None
) -> tuple[str, str, str]:
    """Return what ``spread_text`` prints: mean; interval; lowest, highest and what is missing."""
    mean, low, high = sum(values) / len(values), min(values), max(values)
    decimals = decimals_for([mean, low, high, *(interval or ())])
    bounds = f" [{', '.join(f'{bound:.{decimals}f}' for bound in interval)}]" if interval else ""
    rest = f" ({low:{sign}.{decimals}f} to {high:{sign}.{decimals}f})" if len(values) > 1 else ""
    rest += "" if len(values) == expected else f", {len(values)} of {expected} seeds"
    return f"{mean:{sign}.{decimals}f}", bounds, rest


def decimals_for(values: Sequence[float]) -> int:
    """Return how many digits behind the point show three of the largest value."""
    largest = max(map(abs, values))
    return min(max(2 - math.floor(math.log10(largest)), 0), 8) if largest else 0


def is_conclusive(figure: Figure) -> bool:
    """Whether there is an interval, and it tells on which side of zero the difference is."""
    return figure.low is not None and figure.high is not None and not figure.low <= 0 <= figure.high


def is_about_quality(info: MetricInfo) -> bool:
    """Whether full precision has a figure of its own to subtract."""
    return not info.against.startswith("full-precision")


def has_interval(records: Iterable[Record], name: str) -> bool:
    """Whether any row has an interval of a figure."""
    return any(record.figures[name].low is not None for record in records if name in record.figures)


def label_text(record: Record) -> str:
    """Return how a row is named; what another program made is marked as such."""
    return record.label + (f" ({ELSEWHERE})" if record.method == EXTERNAL else "")


def cell_text(record: Record) -> str:
    """Return a cell's name in a sentence."""
    return f"{record.label} {record.bits} on {record.workload}, seed {record.seed}"


def boundary_text(boundary_bits: int | None) -> str:
    """Return the bits of the first and last layer's weights."""
    return "-" if boundary_bits is None else f"W{boundary_bits}"


def varying(records: Sequence[Record]) -> list[str]:
    """Return which columns of ``VARYING`` tell rows apart; what is the same everywhere stands above the table."""
    boundary = {record.boundary_bits for record in records if not record.bits.startswith("W32")}
    several_seeds = len({record.seed for record in records}) > 1
    return [*(["seed"] if several_seeds else []), *([BOUNDARY] if len(boundary) > 1 else [])]


def conditions(records: Sequence[Record]) -> str:
    """Return in one sentence what rows of a workload have in common: samples, sampler, seeds, exceptions."""
    samplers = {_sampler(record) for record in records}
    samples = sorted({record.samples for record in records})
    seeds = sorted({record.seed for record in records})
    sentences = [
        f"{' and '.join(str(count) for count in samples)} samples",
        " and ".join(sorted(samplers)),
        f"seed {', '.join(map(str, seeds))}",
        _boundary_sentence(records),
    ]
    return "; ".join(sentences) + "."


def references(records: Iterable[Record], name: str) -> dict[str, Any]:
    """Return the real images that a metric compares with, by workload."""
    found: dict[str, Any] = {}
    for record in records:
        info = record.metrics.get(name)
        reference = info.description.get("reference") if info else None
        if isinstance(reference, Mapping):
            found.setdefault(record.workload, reference)
    return found


def picture_file(kind: str, workload: str) -> str:
    """Return the name of a picture of a workload: of its ``curves``, or the ``pareto`` front.

    A label that no suite can give loses its other characters and has a digest behind it, so that no two share a file.
    """
    name = re.sub(r"[^A-Za-z0-9_+-]", "-", workload)
    if name != workload:
        name += f".{sha256(workload.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return f"{kind}.{name}.svg"


def _boundary_sentence(records: Sequence[Record]) -> str:
    boundary = sorted({record.boundary_bits for record in records if record.boundary_bits is not None})
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
    return ", ".join(words)


def _inner(found: Any, *keys: str) -> Mapping[str, Any] | None:
    """Return what lies under some keys of a description, one in the other; None if there is nothing."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None
