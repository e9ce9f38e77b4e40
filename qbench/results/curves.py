"""Pictures of the error at each step: one for each workload, drawn from its records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import ceil, floor, log10
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from qbench.records import Record
from qbench.results.svg import Line, line_of_label, plain, remove_others, remove_picture, text_width, write_picture
from qbench.results.wording import picture_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REVISION = 2
"""To be raised when a picture looks different."""
Kind = Literal["teacher_forced", "free_running"]
TITLES: dict[Kind, str] = {
    "teacher_forced": "teacher-forced: noise estimate in full precision's $x_t$\n"
    r"$\|\epsilon_q - \epsilon_{fp}\|^2\,/\;\|\epsilon_{fp}\|^2$",
    "free_running": "free-running: each sampler's own $x_t$, at last $x_0$\n"
    r"$\|x_q - x_{fp}\|^2\,/\;\|x_{fp}\|^2$",
}
WIDTH = 9.0
"""Inches, as are the room around the panels, the height of a row of them, and that of a line of the legend.

A layout that measures every text would take half of the time that drawing takes.
"""
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 0.85, 0.1, 0.95, 0.45, 0.5
ROW_HEIGHT, LEGEND_HEIGHT, HANDLE = 1.65, 0.17, 0.55
LABELS_BESIDE = 8
"""A legend of more labels, or of wider ones, stands below the panels."""
WIDTH_BESIDE = 1.6
DECADES = 3
"""Between marked errors, at most so many lie on the axis."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LEAST_DECADE = -300
"""What is less lies below the axis: soon behind it floating point ends."""
POINTS = 60
"""Of a line, at most about so many; they decide the size of the file."""


def curves_path(folder: Path, workload: str) -> Path:
    """Return where the picture of a workload lies in a suite's folder."""
    return folder / "media" / picture_file("curves", workload)


def write_curve_pictures(records: Sequence[Record], folder: Path) -> None:
    """Write ``media/curves.<workload>.svg`` for each workload; where there is no curve, no picture stays.

    Args:
        records: of one suite, all of them, in its order: what was drawn of other workloads is removed.
        folder: the suite's.

    Raises:
        ResultsError: the folder cannot be written.
    """
    workloads = dict.fromkeys(record.workload for record in records)
    for workload in workloads:
        with_curve = [record for record in records if record.workload == workload and record.curve is not None]
        path = curves_path(folder, workload)
        if with_curve:
            write_picture(path, _inputs(with_curve), partial(draw, with_curve))
        else:
            remove_picture(path)
    remove_others(folder / "media", "curves", {picture_file("curves", workload) for workload in workloads})


def draw(records: Sequence[Record]) -> Figure:
    """Draw one row of panels for each bits and one line for each label: the mean over seeds in a band of all seeds.

    Args:
        records: each with a curve, of one workload.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    lines = line_of_label(records)
    bits = list(dict.fromkeys(record.bits for record in records))
    widest = max(text_width(plain(label)) for label in lines)
    columns = _legend_columns(len(lines), widest)
    below = BOTTOM + (LEGEND_HEIGHT * ceil(len(lines) / columns) if columns else 0)
    height = TOP + ROW_HEIGHT * len(bits) + below
    figure = Figure(figsize=(WIDTH, height))
    place = {
        "left": LEFT / WIDTH,
        "right": 1 - (RIGHT + (0 if columns else HANDLE + widest)) / WIDTH,
        "top": 1 - TOP / height,
        "bottom": below / height,
        "wspace": 2 * BETWEEN / (WIDTH - LEFT - RIGHT),
        "hspace": 0.13,
    }
    panels = figure.subplots(len(bits), len(TITLES), sharex=True, sharey="col", squeeze=False, gridspec_kw=place)
    _set_axes(panels[0], records)
    for each, row in zip(bits, panels, strict=True):
        of_bits = [record for record in records if record.bits == each]
        for kind, panel in zip(TITLES, row, strict=True):
            _draw_panel(panel, of_bits, kind, lines)
        row[0].set_ylabel(plain(each), fontweight="bold")
    for kind, top in zip(TITLES, panels[0], strict=True):
        top.set_title(TITLES[kind])
    _write_around(figure, panels, records)
    figure.legend(
        [Line2D([], [], **line._asdict()) for line in lines.values()],
        [plain(label) for label in lines],
        loc="lower center" if columns else "upper right",
        bbox_to_anchor=(0.5, 0.0) if columns else (1.0, 1 - TOP / height),
        borderpad=0.2,
        labelspacing=0.35,
        ncols=columns or 1,
        frameon=False,
    )
    return figure


def _inputs(records: Sequence[Record]) -> list[Any]:
    """Return what ``draw`` reads of records, and its own revision."""
    return [
        REVISION,
        [
            [record.workload, record.method, record.label, record.bits, record.seed, record.curve.model_dump()]
            for record in records
            if record.curve is not None
        ],
    ]


def _draw_panel(panel: Axes, records: Sequence[Record], kind: Kind, lines: Mapping[str, Line]) -> None:
    from matplotlib.collections import PolyCollection

    bands, colours = [], []
    for label, line in lines.items():
        errors = _by_step([record for record in records if record.label == label], kind)
        if not errors:
            continue
        steps = list(errors)
        mean = [fmean(seeds) for seeds in errors.values()]
        panel.plot(steps, mean, scalex=False, scaley=False, **line._asdict())
        if any(len(seeds) > 1 for seeds in errors.values()):
            low = [(step, min(filter(None, seeds))) for step, seeds in errors.items()]
            high = [(step, max(seeds)) for step, seeds in errors.items()]
            bands.append([*low, *reversed(high)])
            colours.append(line.color)
    if bands:
        panel.add_collection(PolyCollection(bands, facecolors=colours, alpha=0.15, linewidth=0), autolim=False)
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


def _set_axes(top: Sequence[Axes], records: Sequence[Record]) -> None:
    """Let all panels of a column show the same whole decades: rows are to be compared."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    for kind, panel in zip(TITLES, top, strict=True):
        panel.set_yscale("log")
        errors = [error for record in records for error in getattr(record.curve, kind) if error > 0]
        low, high = (floor(log10(min(errors))), ceil(log10(max(errors)))) if errors else (-1, 0)
        low = max(low, LEAST_DECADE)
        high = max(high, low + 1)
        panel.set_ylim(10.0**low, 10.0**high)
        stride = ceil((high - low) / DECADES)
        panel.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(high, low - 1, -stride)]))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(_decade))
    top[0].xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    steps = max(len(record.curve.step_index) for record in records if record.curve is not None)
    top[0].set_xlim(-steps / 40, steps + steps / 40)


def _decade(error: float, _: int) -> str:
    """Return a power of ten in letters: formulas take long to set."""
    return f"10{str(round(log10(error))).translate(SUPERSCRIPTS)}"


def _write_around(figure: Figure, panels: Any, records: Sequence[Record]) -> None:
    curves = [record.curve for record in records if record.curve is not None]
    seeds = sorted({record.seed for record in records})
    samples = " and ".join(str(count) for count in sorted({curve.samples for curve in curves}))
    over = f"mean over seeds {', '.join(map(str, seeds))} and their range" if len(seeds) > 1 else f"seed {seeds[0]}"
    height = figure.get_figheight()
    figure.suptitle(
        f"{plain(records[0].workload)}: error against full precision at each step\nmedian of {samples} samples; {over}",
        y=1 - 0.06 / height,
    )
    first, last = curves[0].timestep[0], curves[0].timestep[-1]
    figure.supylabel("relative squared error", fontsize=8.0, x=0.08 / WIDTH)
    panels[-1][0].set_xlabel(f"step, from noise (t = {first}) to image (t = {last})")
    panels[-1][1].set_xlabel("steps done, from noise to image")


def _legend_columns(labels: int, widest: float) -> int:
    """Return how many columns the legend has below the panels; 0 if there is room for it beside them."""
    if labels <= LABELS_BESIDE and widest <= WIDTH_BESIDE:
        return 0
    return max(1, min(int(WIDTH / (widest + HANDLE)), labels))
