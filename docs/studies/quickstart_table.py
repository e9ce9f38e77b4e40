"""The picture of the quickstart's table that the README shows, drawn from the committed results.

    python docs/studies/quickstart_table.py

It brings its own background and the colours for a dark one, so that it can be read on any page.
"""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pandas as pd

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "results" / "quickstart"
PICTURE = ROOT / "docs" / "media" / "quickstart-table.svg"
WIDTH, ROW, TOP, BOTTOM = 960, 38, 66, 44
METHOD, BITS, SIZE, DISTANCE, AXIS, ERROR, IMAGES = 20, 138, 254, 338, (358, 584), 672, 692
SHOWN, SIDE = 8, 31
TICKS = (-0.5, 0.0, 0.5, 1.0, 1.5)
START, END = -0.5, 1.6
STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; fill: #1f2328 }
.card { fill: #ffffff; stroke: #d1d9e0 } .line { stroke: #d1d9e0 } .zero { stroke: #59636e }
.head { font-size: 12px; fill: #59636e } .end { text-anchor: end } .middle { text-anchor: middle }
.number { font-variant-numeric: tabular-nums } .first { font-weight: 600 }
.interval { stroke-width: 2.5 } .unsure { stroke: #8b949e; fill: #ffffff } .worse { stroke: #bc4c00; fill: #bc4c00 }
.better { stroke: #0969da; fill: #0969da } image { image-rendering: auto }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .card { fill: #151b23; stroke: #3d444d } .line { stroke: #3d444d } .zero { stroke: #9198a1 }
  .head { fill: #9198a1 } .unsure { stroke: #9198a1; fill: #151b23 } .worse { stroke: #f0883e; fill: #f0883e }
  .better { stroke: #58a6ff; fill: #58a6ff }
}
"""


def picture() -> str:
    """Return the picture as SVG."""
    table = pd.read_csv(RESULTS / "table.csv")
    height = TOP + ROW * len(table) + BOTTOM
    bottom = TOP + ROW * len(table)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="The table of the quickstart">\n<style>{STYLE}</style>\n'
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n',
        *_header(),
        *(_line(_along(tick), TOP - 8, _along(tick), bottom, "zero" if tick == 0 else "line") for tick in TICKS),
    ]
    for index, row in table.iterrows():
        parts += _row(row, TOP + ROW * int(index))
    parts += [_text(_along(tick), bottom + 16, f"{tick:+g}" if tick else "0", "head middle") for tick in TICKS]
    legend = (
        "Lines are 95 % intervals; a dot is filled where its interval excludes zero. A column of images is one noise."
    )
    parts.append(_text(METHOD, height - 10, legend, "head"))
    return "".join([*parts, "</svg>\n"])


def _header() -> Iterator[str]:
    yield _text(METHOD, 34, "method", "head")
    yield _text(BITS, 34, "bits", "head")
    yield _text(SIZE, 34, "MB", "head end")
    yield _text(DISTANCE, 34, "fd-fashion ↓", "head end")
    yield _text(sum(AXIS) / 2, 34, "minus full precision", "head middle")
    yield _text(ERROR, 34, "mse-to-fp ↓", "head end")
    yield _text(IMAGES, 34, f"the first {SHOWN} images", "head")
    yield _line(METHOD, 46, WIDTH - METHOD, 46, "line")


def _row(row: "pd.Series[object]", top: int) -> Iterator[str]:
    middle = top + ROW // 2
    base = middle + 5
    first = "first" if row["label"] == "full-precision" else ""
    yield _text(METHOD, base, str(row["label"]), first)
    yield _text(BITS, base, str(row["bits"]), first)
    yield _text(SIZE, base, f"{row['size_mb']:.2f}", f"number end {first}")
    yield _text(DISTANCE, base, f"{row['fd-fashion']:.2f}", f"number end {first}")
    if first:
        yield _text(ERROR, base, "-", "end")
    else:
        low, delta, high = (float(row[f"fd-fashion_{each}"]) for each in ("low", "delta", "high"))
        kind = "worse" if low > 0 else "better" if high < 0 else "unsure"
        yield _line(_along(low), middle, _along(high), middle, f"interval {kind}")
        yield f'<circle class="{kind}" cx="{_along(delta):.1f}" cy="{middle}" r="4.5" stroke-width="2"/>\n'
        yield _text(ERROR, base, f"{row['mse-to-fp']:.4f}", "number end")
    yield _images(row, middle - SIDE // 2)


def _images(row: "pd.Series[object]", top: int) -> str:
    name = f"{row['workload']}.{row['label']}.{row['bits']}.s{row['seed']}.png"
    data = b64encode((RESULTS / "media" / "strips" / name).read_bytes()).decode("ascii")
    return (
        f'<svg x="{IMAGES}" y="{top}" width="{SHOWN * SIDE}" height="{SIDE}" viewBox="0 0 {SHOWN * 16} 16">'
        f'<image width="192" height="16" href="data:image/png;base64,{data}"/></svg>\n'
    )


def _along(value: float) -> float:
    """Return where a difference lies on the axis."""
    share = (value - START) / (END - START)
    return round(AXIS[0] + share * (AXIS[1] - AXIS[0]), 1)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind.strip()}" x="{x:g}" y="{y}">{escape(text)}</text>\n'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:g}" y1="{y1}" x2="{x2:g}" y2="{y2}"/>\n'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
