"""Pictures of the error at each step: one for each workload, drawn from its records alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from io import StringIO
from math import ceil, floor, log10
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from qbench.records import Record, write_bytes
from qbench.results.markdown import curves_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["teacher_forced", "free_running"]
TITLES: dict[Kind, str] = {
    "teacher_forced": "teacher-forced: noise estimate in full precision's $x_t$\n"
    r"$\|\epsilon_q - \epsilon_{fp}\|^2\,/\;\|\epsilon_{fp}\|^2$",
    "free_running": "free-running: each sampler's own $x_t$, at last $x_0$\n"
    r"$\|x_q - x_{fp}\|^2\,/\;\|x_{fp}\|^2$",
}
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
WIDTH = 9.0
"""Inches, as are the heights of titles with the axis below, of a row of panels, and of a line of the legend."""
HEAD_HEIGHT, ROW_HEIGHT, LEGEND_HEIGHT = 1.3, 1.7, 0.17
LABELS_BESIDE = 8
"""A legend of more labels, or of longer ones, stands below the panels."""
LENGTH_BESIDE = 24
POINTS = 60
"""Of a line, at most about so many; they decide the size of the file."""
SETTINGS = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 8.0,
    "figure.titlesize": 10.0,
    "grid.color": "#e0e0e0",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "xtick.bottom": False,
    "ytick.left": False,
    "svg.hashsalt": "qbench",
    "svg.fonttype": "path",  # a browser's own fonts are of another width
}


class Line(NamedTuple):
    """How a label is drawn."""

    color: str
    linestyle: Any


def curves_path(folder: Path, workload: str) -> Path:
    """Return where the picture of a workload lies in a suite's folder."""
    return folder / "media" / curves_file(workload)


def write_curve_pictures(records: Sequence[Record], folder: Path) -> None:
    """Write ``media/curves.<workload>.svg`` for each workload; where there is no curve, no picture stays.

    Args:
        records: of one suite, in its order.
        folder: the suite's.

    Raises:
        ResultsError: the folder cannot be written.
    """
    for workload in dict.fromkeys(record.workload for record in records):
        with_curve = [record for record in records if record.workload == workload and record.curve is not None]
        path = curves_path(folder, workload)
        if with_curve:
            write_bytes(path, picture(with_curve))
        elif path.is_file():
            path.unlink()


def picture(records: Sequence[Record]) -> bytes:
    """Return the picture of one workload as SVG, the same bytes for the same records.

    Args:
        records: each with a curve, of one workload.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user has set for pictures of their own
        matplotlib.rcParams.update(SETTINGS)
        FigureCanvasSVG(draw(records)).print_svg(content, metadata={"Date": None, "Creator": None})
    return _slim(content.getvalue()).encode()


def draw(records: Sequence[Record]) -> Figure:
    """Draw one row of panels for each bits and one line for each label: the mean over seeds in a band of all seeds.

    Args:
        records: each with a curve, of one workload.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    lines = line_of_label(records)
    rows = list(dict.fromkeys(record.bits for record in records))
    columns = _legend_columns(lines)
    height = HEAD_HEIGHT + ROW_HEIGHT * len(rows) + (LEGEND_HEIGHT * ceil(len(lines) / columns) if columns else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(len(rows), len(TITLES), sharex=True, sharey="col", squeeze=False)
    for bits, row in zip(rows, panels, strict=True):
        of_bits = [record for record in records if record.bits == bits]
        for kind, panel in zip(TITLES, row, strict=True):
            _draw_panel(panel, of_bits, kind, lines)
        row[0].set_ylabel(_plain(bits), fontweight="bold")
    for kind, top in zip(TITLES, panels[0], strict=True):
        top.set_title(TITLES[kind])
    _set_limits(panels[0], records)
    _write_around(figure, panels, records)
    figure.legend(
        [Line2D([], [], **line._asdict()) for line in lines.values()],
        [_plain(label) for label in lines],
        loc="outside lower center" if columns else "outside right upper",
        ncols=columns or 1,
        frameon=False,
    )
    return figure


def line_of_label(records: Iterable[Record]) -> dict[str, Line]:
    """Return how each label is drawn, in the order of the legend.

    A label has a colour of its own. If there are more labels than colours, those of one method stand together, share
    its colour and differ in their dashes.
    """
    method_of = {record.label: record.method or record.label for record in records}
    labels = list(method_of)
    methods = list(dict.fromkeys(method_of.values()))
    of_method = {each: [label for label in labels if method_of[label] == each] for each in methods}
    if len(labels) > len(COLOURS) >= len(methods) and len(DASHES) >= max(map(len, of_method.values())):
        return {
            label: Line(colour, dashes)
            for colour, method in zip(COLOURS, methods, strict=False)
            for dashes, label in zip(DASHES, of_method[method], strict=False)
        }
    styles = [Line(colour, dashes) for dashes in DASHES for colour in COLOURS]
    return {label: styles[index % len(styles)] for index, label in enumerate(labels)}


def _draw_panel(panel: Axes, records: Sequence[Record], kind: Kind, lines: Mapping[str, Line]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(numticks=5))
    panel.minorticks_off()
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for label, line in lines.items():
        errors = _by_step([record for record in records if record.label == label], kind)
        if not errors:
            continue
        steps = list(errors)
        panel.plot(steps, [fmean(seeds) for seeds in errors.values()], **line._asdict())
        if any(len(seeds) > 1 for seeds in errors.values()):
            low = [min(filter(None, seeds)) for seeds in errors.values()]
            high = [max(seeds) for seeds in errors.values()]
            panel.fill_between(steps, low, high, color=line.color, alpha=0.15, linewidth=0)
    if not panel.lines:
        panel.text(0.5, 0.5, "no error at any step", transform=panel.transAxes, ha="center", va="center")


def _by_step(records: Iterable[Record], kind: Kind) -> dict[int, list[float]]:
    """Return the errors of all seeds at each step that is drawn; a logarithmic axis has no place for 0."""
    found: dict[int, list[float]] = {}
    for record in records:
        errors = getattr(record.curve, kind)
        stride = ceil(len(errors) / POINTS)
        for step, error in enumerate(errors):
            if step % stride == 0 or step == len(errors) - 1:
                found.setdefault(step, []).append(error)
    return {step: seeds for step, seeds in sorted(found.items()) if any(seeds)}


def _set_limits(top: Sequence[Axes], records: Sequence[Record]) -> None:
    """Let all panels of a column show the same whole decades: rows are to be compared."""
    for kind, panel in zip(TITLES, top, strict=True):
        errors = [error for record in records for error in getattr(record.curve, kind) if error > 0]
        if errors:
            low, high = floor(log10(min(errors))), ceil(log10(max(errors)))
            panel.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
    steps = max(len(record.curve.step_index) for record in records if record.curve is not None)
    top[0].set_xlim(-steps / 40, steps + steps / 40)


def _write_around(figure: Figure, panels: Any, records: Sequence[Record]) -> None:
    curves = [record.curve for record in records if record.curve is not None]
    seeds = sorted({record.seed for record in records})
    samples = " and ".join(str(count) for count in sorted({curve.samples for curve in curves}))
    over = f"mean over seeds {', '.join(map(str, seeds))} and their range" if len(seeds) > 1 else f"seed {seeds[0]}"
    figure.suptitle(
        f"{_plain(records[0].workload)}: error against full precision at each step\nmedian of {samples} samples; {over}"
    )
    first, last = curves[0].timestep[0], curves[0].timestep[-1]
    figure.supylabel("relative squared error", fontsize=8.0)
    panels[-1][0].set_xlabel(f"step, from noise ($t$ = {first}) to image ($t$ = {last})")
    panels[-1][1].set_xlabel("steps done, from noise to image")


def _legend_columns(labels: Collection[str]) -> int:
    """Return how many columns the legend has below the panels; 0 if there is room for it beside them."""
    longest = max(map(len, labels))
    if len(labels) <= LABELS_BESIDE and longest <= LENGTH_BESIDE:
        return 0
    fitting = int(72 * WIDTH / (5 * longest + 45))  # in points, of which a letter has about 5
    return max(1, min(fitting, len(labels)))


def _slim(svg: str) -> str:
    """Leave out what makes a third of the file and is not seen: six digits behind the point, and indentation."""

    def rounded(place: re.Match[str]) -> str:
        return " ".join(f"{float(each):.1f}".removesuffix(".0") for each in place.group().split())

    number = r"-?\d+(?:\.\d+)?"
    return re.sub(r" *\n *", "\n", re.sub(rf"(?<=[ML] ){number} {number}", rounded, svg))


def _plain(text: str) -> str:
    """Keep a name from being read as a formula."""
    return " ".join(text.split()).replace("$", r"\$")
