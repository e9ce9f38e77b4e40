"""Static pictures for papers and documents: one look, and the same bytes for the same records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qbench.records import Record, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
FONT_SIZE = 8.0
SETTINGS = {
    "font.size": FONT_SIZE,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 8.0,
    "axes.titley": 1.0,  # or every tick is measured for it
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


def write_picture(path: Path, inputs: Any, draw: Callable[[], Figure]) -> None:
    """Write a picture, unless the file there is unspoilt and was drawn from the same.

    Drawing takes seconds, so a picture says at its end what it was drawn from, and what it has to hold.

    Args:
        path: of the SVG.
        inputs: everything that decides how it looks, as JSON has it.
        draw: draws it.

    Raises:
        ResultsError: the folder cannot be written.
    """
    drawn_from = _digest(json.dumps(inputs, allow_nan=False).encode())
    if path.is_file():
        content, mark, stamp = path.read_bytes().rpartition(b"<!-- drawn from ")
        if mark + stamp == _stamp(drawn_from, content):
            return
    content = picture(draw)
    write_bytes(path, content + _stamp(drawn_from, content))


def remove_picture(path: Path) -> None:
    """Remove a picture that there is nothing left to draw of."""
    if path.is_file():
        path.unlink()


def picture(draw: Callable[[], Figure]) -> bytes:
    """Return what is drawn as SVG, whatever the user has set for pictures of their own."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        FigureCanvasSVG(draw()).print_svg(content, metadata={"Date": None, "Creator": None})
    return _slim(content.getvalue()).encode()


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


def text_width(text: str) -> float:
    """Return the width of a text in a legend, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    size = FontProperties(size=FONT_SIZE)
    width: float = text_to_path.get_text_width_height_descent(text, size, ismath=False)[0]
    return width / 72


def plain(text: str) -> str:
    """Keep a name from being read as a formula."""
    return " ".join(text.split()).replace("$", r"\$")


def _stamp(drawn_from: str, content: bytes) -> bytes:
    return f"<!-- drawn from {drawn_from}, unspoilt {_digest(content)} -->\n".encode()


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:32]


def _slim(svg: str) -> str:
    """Leave out what makes a third of the file and is not seen: six digits behind the point, and indentation."""

    def rounded(place: re.Match[str]) -> str:
        return " ".join(f"{float(each):.1f}".removesuffix(".0") for each in place.group().split())

    number = r"-?\d+(?:\.\d+)?"
    return re.sub(r" *\n *", "\n", re.sub(rf"(?<=[ML] ){number} {number}", rounded, svg))
