"""Draw docs/studies/fast-preset.csv: held-out error of a block against the time that learning took.

python docs/studies/plot_fast_preset.py docs/media/fast-preset.svg        needs pip install '.[docs]'
"""

import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

COLOURS = {"published": "#4c566a", "fast": "#2a7ab9", "preset": "#c8553d"}
LABELS = {
    "published": "published recipe, on its way to 20,000 iterations",
    "fast": "fast recipe on the published rows, each point a run of its own",
    "preset": "the fast preset",
}


def main(path: Path) -> None:
    """Draw the curves; the same table gives the same bytes."""
    mpl.rcParams |= {"svg.hashsalt": "qbench", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    frame = pd.read_csv(Path(__file__).parent / "fast-preset.csv")
    blocks, widths = list(dict.fromkeys(frame.block)), list(dict.fromkeys(frame.bits))
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(len(widths), len(blocks), sharex=True, squeeze=False)
    for row, bits in zip(axes, widths, strict=True):
        for axis, block in zip(row, blocks, strict=True):
            for recipe, colour in COLOURS.items():
                part = frame[(frame.block == block) & (frame.bits == bits) & (frame.recipe == recipe)]
                style = "" if recipe == "preset" else "-"
                axis.plot(part.seconds, part.error, style, marker="o", markersize=4, color=colour, label=LABELS[recipe])
            axis.set_xscale("log")
            axis.set_ylim(0, 1.05)
            axis.set_title(f"{block}, {bits} bits", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("seconds of one thread")
    for row in axes:
        row[0].set_ylabel("error / round to nearest")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
