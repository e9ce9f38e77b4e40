"""Pictures of quality against size with the Pareto front: one for each workload, drawn from its records alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from qbench.records import Figure as FigureOfRecord
from qbench.records import MetricInfo, Record
from qbench.results.svg import Line, line_of_label, plain, remove_others, remove_picture, text_width, write_picture
from qbench.results.table_layout import used_metrics
from qbench.results.wording import is_about_quality, picture_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REVISION = 2
"""To be raised when a picture looks different."""
WIDTH, HEIGHT = 9.0, 2.0
"""Inches, of all panels side by side, as are the room around them and the size of a line of the legend below."""
LEFT, RIGHT, TOP, BOTTOM = 0.65, 0.1, 0.75, 0.6
LEGEND_HEIGHT, HANDLE = 0.17, 0.55
MANY_TIMES = 5.0
"""Figures whose greatest is so many times the least are drawn on a logarithmic axis."""
SAME_SIZE = 1.01
"""Sizes count as the same up to this ratio: a layer more or less at eight bits is no other choice."""
A_BYTE = 1e-6
"""MB: no denoiser is smaller."""
ASIDE = 0.1
"""Of half the size: how far points may stand aside."""
FRONT = "#555555"


class Point(NamedTuple):
    """A row of a table.

    Attributes:
        label: of the method.
        weights: bits of the weights, such as ``W4``.
        activations: what the bits say of activations, such as ``A8``.
        has_exception: whether the first and last layer have bits of their own.
        size_mb: size of the denoiser.
        mean: of the figure over seeds.
        low: least of all seeds; of one seed, the lower end of the interval of the difference from full precision.
        high: the same at the upper end.
    """

    label: str
    weights: str
    activations: str
    has_exception: bool
    size_mb: float
    mean: float
    low: float
    high: float


class Drawn(NamedTuple):
    """What all points of a picture have in common.

    Attributes:
        workload: label of the workload.
        metric: id of the figure.
        direction: which figures are better.
        samples: how many images they are over.
        seeds: of all rows.
    """

    workload: str
    metric: str
    direction: str
    samples: int
    seeds: list[int]


def write_pareto_pictures(records: Sequence[Record], metrics: Mapping[str, MetricInfo], folder: Path) -> None:
    """Write ``media/pareto.<workload>.svg`` for each workload; where there is nothing to choose from, none stays.

    Args:
        records: of one suite, all of them, in its order: what was drawn of other workloads is removed.
        metrics: what the columns stand for.
        folder: the suite's.

    Raises:
        ResultsError: the folder cannot be written.
    """
    workloads = dict.fromkeys(record.workload for record in records)
    for workload in workloads:
        own = [record for record in records if record.workload == workload]
        path = folder / "media" / picture_file("pareto", workload)
        metric = drawn_metric(own, metrics)
        if metric is None:
            remove_picture(path)
            continue
        points, lines = points_of(own, metric), line_of_label(record for record in own if not record.is_full_precision)
        baseline = [record.figures[metric].value for record in own if record.is_full_precision and _has(record, metric)]
        seeds = sorted({record.seed for record in own})
        drawn = Drawn(workload, metric, metrics[metric].direction, own[0].samples, seeds)
        inputs = [REVISION, drawn, points, baseline, list(lines.items())]
        write_picture(path, inputs, partial(draw, points, baseline, lines, drawn))
    remove_others(folder / "media", "pareto", {picture_file("pareto", workload) for workload in workloads})


def drawn_metric(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> str | None:
    """Return the metric that stands for quality: the first that is one; None if no two rows have it.

    Args:
        records: of one workload.
        metrics: what the columns stand for.
    """
    for name in used_metrics(records, metrics):
        if is_about_quality(metrics[name]) and len(points_of(records, name)) > 1:
            return name
    return None


def points_of(records: Sequence[Record], metric: str) -> list[Point]:
    """Return what quantized rows have of a figure, over their seeds; a logarithmic axis has no place for size 0.

    Args:
        records: of one workload.
        metric: id of the figure.
    """
    groups: dict[tuple[str, str, int | None], list[Record]] = {}
    for record in records:
        if record.profile is not None and not record.is_full_precision and _has(record, metric):
            groups.setdefault((record.label, record.bits, record.boundary_bits), []).append(record)
    points = []
    for (label, bits, boundary_bits), group in groups.items():
        weights, activations = _parts(bits)
        figures = [record.figures[metric] for record in group]
        values = [figure.value for figure in figures]
        low, high = (min(values), max(values)) if len(values) > 1 else _interval(figures[0])
        size = max(record.profile.size_mb for record in group if record.profile is not None)
        if size < A_BYTE:
            continue
        has_exception = boundary_bits is not None
        points.append(Point(label, weights, activations, has_exception, size, fmean(values), low, high))
    return points


def front(points: Sequence[Point], is_higher_better: bool) -> list[Point]:
    """Return the points that no other is better than at a size that is smaller or about the same, by size."""
    sign = -1 if is_higher_better else 1

    def is_beaten(point: Point) -> bool:
        return any(
            (sign * other.mean < sign * point.mean and other.size_mb <= SAME_SIZE * point.size_mb)
            or (other.mean == point.mean and SAME_SIZE * other.size_mb < point.size_mb)
            for other in points
        )

    return sorted((point for point in points if not is_beaten(point)), key=lambda point: point.size_mb)


def draw(points: Sequence[Point], baseline: Sequence[float], lines: Mapping[str, Line], drawn: Drawn) -> Figure:
    """Draw a panel for each activation bits: a point for each row, the front, and full precision as a line.

    Args:
        points: of one workload.
        baseline: the figure of full precision, at each seed.
        lines: how labels are drawn.
        drawn: what the points are.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    activations = list(dict.fromkeys(point.activations for point in points))
    shown = [label for label in lines if any(point.label == label for point in points)]
    places = _places(shown)
    columns = max(1, min(len(shown) + 2, int(WIDTH / (max(text_width(plain(label)) for label in shown) + HANDLE))))
    below = BOTTOM + LEGEND_HEIGHT * ceil((len(shown) + 2) / columns)
    height = TOP + HEIGHT + below
    figure = Figure(figsize=(WIDTH, height))
    place = {"left": LEFT / WIDTH, "right": 1 - RIGHT / WIDTH, "top": 1 - TOP / height, "bottom": below / height}
    panels = figure.subplots(
        1, len(activations), sharex=True, sharey=True, squeeze=False, gridspec_kw=place | {"wspace": 0.04}
    )[0]
    if _needs_logarithm([*(point.mean for point in points), *baseline]):
        panels[0].set_yscale("log")
    for each, panel in zip(activations, panels, strict=True):
        _draw_panel(
            panel, [point for point in points if point.activations == each], lines, places, drawn.direction == "higher"
        )
        if baseline:
            panel.axhline(fmean(baseline), color="black", linewidth=0.8, linestyle=(0, (4, 2)))
        panel.set_title(_activations_text(each))
        panel.set_xlabel("size of the denoiser, MB (methods side by side)")
    _set_sizes(panels, points)
    best = "lower is better" if drawn.direction == "lower" else "higher is better"
    panels[0].set_ylabel(f"{plain(drawn.metric)} ({best})")
    over = f"mean over seeds {', '.join(map(str, drawn.seeds))} and their range"
    if len(drawn.seeds) == 1:
        over = f"seed {drawn.seeds[0]}; bars: 95 % interval of the difference from full precision"
    figure.suptitle(
        f"{plain(drawn.workload)}: quality against size\n{drawn.samples} samples; {over}{_hollow(points)}",
        y=1 - 0.06 / height,
    )
    handles = [Line2D([], [], color=lines[label].color, marker=lines[label].marker, linestyle="") for label in shown]
    handles += [Line2D([], [], color=FRONT, linewidth=0.9)]
    names = [*map(plain, shown), "Pareto front"]
    if baseline:
        handles.append(Line2D([], [], color="black", linewidth=0.8, linestyle=(0, (4, 2))))
        names.append("full precision")
    figure.legend(handles, names, loc="lower center", ncols=columns, frameon=False, borderpad=0.2, labelspacing=0.35)
    return figure


def _places(labels: Sequence[str]) -> dict[str, float]:
    """Return by how much of its size a label's points are set aside, so that those of one size do not hide others."""
    middle = (len(labels) - 1) / 2
    return {label: 2 ** (ASIDE * (place - middle) / max(middle, 1)) for place, label in enumerate(labels)}


def _draw_panel(
    panel: Axes,
    points: Sequence[Point],
    lines: Mapping[str, Line],
    places: Mapping[str, float],
    is_higher_better: bool,
) -> None:
    best = front(points, is_higher_better)
    panel.step(
        [point.size_mb * places[point.label] for point in best],
        [point.mean for point in best],
        where="post",
        color=FRONT,
        linewidth=0.9,
        zorder=1,
    )
    for point in points:
        line, size = lines[point.label], point.size_mb * places[point.label]
        panel.plot(
            [size],
            [point.mean],
            color=line.color,
            marker=line.marker,
            markersize=5,
            markerfacecolor=line.color if point.has_exception else "white",
            linestyle="",
            zorder=3,
        )
        if point.high > point.low:
            panel.plot([size] * 2, [point.low, point.high], color=line.color, linewidth=0.8, alpha=0.6, zorder=2)


def _set_sizes(panels: Sequence[Axes], points: Sequence[Point]) -> None:
    """Put the weight bits at the sizes where they lie, on an axis in which half the size is one step."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    sizes: dict[str, list[float]] = {}
    for point in points:
        sizes.setdefault(point.weights, []).append(point.size_mb)
    ticks = sorted({round(fmean(found), 6): weights for weights, found in sizes.items()}.items())
    panels[0].set_xscale("log", base=2)
    panels[0].xaxis.set_major_locator(FixedLocator([size for size, _ in ticks]))
    panels[0].xaxis.set_minor_locator(NullLocator())
    named = {size: f"{size:.3g}\n{plain(weights)}" for size, weights in ticks}
    for panel in panels:
        panel.xaxis.set_major_formatter(FuncFormatter(lambda size, _: named.get(round(size, 6), "")))
    least, greatest = min(point.size_mb for point in points), max(point.size_mb for point in points)
    panels[0].set_xlim(least / 1.25, greatest * 1.25)


def _has(record: Record, metric: str) -> bool:
    return metric in record.figures and metric not in record.failures


def _interval(figure: FigureOfRecord) -> tuple[float, float]:
    if figure.delta is None or figure.low is None or figure.high is None:
        return figure.value, figure.value
    return figure.value - figure.delta + figure.low, figure.value - figure.delta + figure.high


def _parts(bits: str) -> tuple[str, str]:
    found = re.fullmatch(r"(W\d+)(A\d+.*)", bits)
    return (found[1], found[2]) if found else (bits, "")


def _activations_text(activations: str) -> str:
    return "activations in full precision" if activations == "A32" else f"activations {plain(activations) or '?'}"


def _needs_logarithm(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > MANY_TIMES


def _hollow(points: Sequence[Point]) -> str:
    both = len({point.has_exception for point in points}) > 1
    return "; hollow: no exception for the first and last layer" if both else ""
