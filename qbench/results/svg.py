"""Static pictures for papers and documents: one look, and the same bytes for the same records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qbench.errors import ResultsError
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


DRAWN_FROM = b"<!-- drawn from "


class Line(NamedTuple):
    """How a label is drawn."""

    color: str
    linestyle: Any

    @property
    def marker(self) -> str:
        """What a point has in place of the dashes that the label has in other pictures."""
        return "o" if self.linestyle == "-" else {4: "s", 1: "^", 5: "D"}.get(int(self.linestyle[1][0]), "o")


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
        content, mark, stamp = path.read_bytes().rpartition(DRAWN_FROM)
        if mark + stamp == _stamp(drawn_from, content):
            return
    content = picture(draw)
    write_bytes(path, content + _stamp(drawn_from, content))


def remove_picture(path: Path) -> None:
    """Remove a picture that there is nothing left to draw of.

    Raises:
        ResultsError: it cannot be removed.
    """
    if path.is_file():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ResultsError(f"{path} cannot be removed ({error.strerror})") from error


def remove_others(folder: Path, kind: str, kept: Collection[str]) -> None:
    """Remove pictures of workloads that are gone: unspoilt ones that were drawn here, and nobody else's.

    Args:
        folder: that holds them.
        kind: what their names begin with.
        kept: names of files that have a workload.

    Raises:
        ResultsError: one cannot be read or removed.
    """
    for path in sorted(folder.glob(f"{kind}.*.svg")):
        if path.name not in kept and _was_drawn_here(path):
            remove_picture(path)


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
    """Keep a name from being read as a formula, and leave out what an SVG has no place for."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable()).replace("$", r"\$")


def _was_drawn_here(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        content, _, stamp = path.read_bytes().rpartition(DRAWN_FROM)
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror})") from error
    return DRAWN_FROM + stamp == _stamp(stamp.partition(b",")[0].decode("ascii", "replace"), content)


def _stamp(drawn_from: str, content: bytes) -> bytes:
    return DRAWN_FROM + f"{drawn_from}, unspoilt {_digest(content)} -->\n".encode()


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:32]


def _slim(svg: str) -> str:
    """Leave out what makes a third of the file and is not seen: six digits behind the point, and indentation."""

    def rounded(place: re.Match[str]) -> str:
        return " ".join(f"{float(each):.1f}".removesuffix(".0") for each in place.group().split())

    number = r"-?\d+(?:\.\d+)?"
    return re.sub(r" *\n *", "\n", re.sub(rf"(?<=[ML] ){number} {number}", rounded, svg))
