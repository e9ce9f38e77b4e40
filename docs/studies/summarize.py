"""What the committed tables of ``methods`` and ``ablation`` come to over their seeds.

Rewrites, in pages of documentation, whatever stands between ``<!-- NAME -->`` and ``<!-- end -->`` by the summary of
that name; with the same tables the pages stay as they are.

    python docs/studies/summarize.py docs/tiny-ddim.md docs/fast-preset.md
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev

import pandas as pd

ROOT = Path(__file__).parent.parent.parent
STUDIES = Path(__file__).parent
T_95_TWO_DEGREES = 4.303
"""Quantile of Student's t for an interval of 95 % from three seeds."""
COMPARED = ("W3A32", "W3A8", "W4A8")
RIVALS = ("linear-fast", "mse-fast", "squant-fast", "ptq4dm-fast", "adaround-fast", "brecq-fast")


def rows_of(suite: str) -> pd.DataFrame:
    """Return a suite's committed table."""
    return pd.read_csv(ROOT / "results" / suite / "table.csv")


def by_bits(suite: str, column: str, strict: bool | None = None) -> str:
    """Return the means of a column, a row for each label and a column for each width, with least and greatest seed."""
    frame = rows_of(suite)
    frame = frame[frame.label != "full-precision"]
    if strict is not None:
        frame = frame[frame.boundary_bits.isna() == strict]
    widths = list(dict.fromkeys(frame.bits))

    def cell(label: str, bits: str) -> str:
        found = frame[(frame.label == label) & (frame.bits == bits)][column].tolist()
        return f"{_short(mean(found))} ({_short(min(found))} to {_short(max(found))})" if found else "not run"

    labels = list(dict.fromkeys(frame.label))
    return _table(["method", *widths], [[label, *(cell(label, bits) for bits in widths)] for label in labels])


def against(suite: str, label: str, rivals: Sequence[str], widths: Sequence[str]) -> str:
    """Return what other rows have more than one row, paired by seed: the ratio of errors and the difference of FD."""
    frame = rows_of(suite).set_index(["label", "bits", "seed"]).sort_index()
    seeds = sorted(set(rows_of(suite).seed))

    def pairs(rival: str, bits: str, column: str) -> list[tuple[float, float]]:
        return [
            (float(frame.loc[(rival, bits, seed), column]), float(frame.loc[(label, bits, seed), column]))
            for seed in seeds
        ]

    rows = []
    for bits in widths:
        for rival in rivals:
            ratios = [theirs / ours for theirs, ours in pairs(rival, bits, "mse-to-fp")]
            more = [theirs - ours for theirs, ours in pairs(rival, bits, "fd-fashion")]
            half = T_95_TWO_DEGREES * stdev(more) / len(more) ** 0.5
            rows.append(
                [
                    bits,
                    rival,
                    f"{_short(median(ratios))} ({_short(min(ratios))} to {_short(max(ratios))})",
                    f"{mean(more):+.2f} [{mean(more) - half:.2f}, {mean(more) + half:.2f}]",
                    ", ".join(f"{each:+.2f}" for each in more),
                ]
            )
    header = ["bits", "method", "mse-to-fp, times", "fd-fashion, more by", "seed by seed"]
    return _table(header, rows)


def fast_preset() -> str:
    """Return how the recipes for roundings compare, block by block."""
    frame = pd.read_csv(STUDIES / "fast-preset.csv")
    final = frame[(frame.recipe == "published") & (frame.iterations == frame.iterations.max())]
    final = final.set_index(["block", "bits"])
    rows = []
    ratios: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for (block, bits), part in frame.groupby(["block", "bits"], sort=False):
        published = final.loc[(block, bits)]
        row = [block, f"{bits}", f"{published.error:.3f}", f"{published.seconds:.0f} s"]
        for recipe, iterations in _fast_columns(frame):
            at = part[(part.recipe == recipe) & (part.iterations == iterations)].iloc[0]
            pair = at.error / published.error, at.seconds / published.seconds
            ratios.setdefault((recipe, iterations), []).append(pair)
            row.append(f"{pair[0]:.2f} in {100 * pair[1]:.1f} %")
        rows.append(row)
    medians = [
        f"{median(error for error, _ in found):.2f} in {100 * median(time for _, time in found):.1f} %"
        for found in ratios.values()
    ]
    names = [f"{recipe} {iterations:,}" for recipe, iterations in _fast_columns(frame)]
    return _table(["block", "bits", "published", "its time", *names], [*rows, ["median", "", "", "", *medians]])


def _fast_columns(frame: pd.DataFrame) -> list[tuple[str, int]]:
    fast = frame[frame.recipe != "published"]
    return list(dict.fromkeys(zip(fast.recipe, fast.iterations, strict=True)))


def studied(name: str) -> str:
    """Return one of the CSV files of the studies as it is."""
    frame = pd.read_csv(STUDIES / f"{name}.csv", dtype=str)
    return _table(list(frame.columns), frame.to_numpy().tolist())


SUMMARIES: dict[str, Callable[[], str]] = {
    "methods mse-to-fp": partial(by_bits, "methods", "mse-to-fp", False),
    "methods fd-fashion": partial(by_bits, "methods", "fd-fashion_delta", False),
    "methods against qdiffusion": partial(against, "methods", "qdiffusion-fast", RIVALS, COMPARED),
    "strict mse-to-fp": partial(by_bits, "methods", "mse-to-fp", True),
    "strict fd-fashion": partial(by_bits, "methods", "fd-fashion_delta", True),
    "ablation mse-to-fp": partial(by_bits, "ablation", "mse-to-fp"),
    "ablation fd-fashion": partial(by_bits, "ablation", "fd-fashion_delta"),
    "ablation against all steps": lambda: against(
        "ablation",
        "qdiffusion-fast-all-steps",
        [each for each in dict.fromkeys(rows_of("ablation").label) if each.startswith("qdiffusion")][1:],
        ("W3A32", "W4A6"),
    ),
    "fast preset": fast_preset,
    "last convolution images": partial(studied, "last-convolution-images"),
    "last convolution steps": partial(studied, "last-convolution-steps"),
}


def rewritten(page: str) -> str:
    """Return a page with its summaries as the tables have them now.

    Raises:
        KeyError: the page asks for a summary that there is not.
    """

    def replace(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{SUMMARIES[match[1]]()}<!-- end -->"

    return re.sub(r"<!-- (.*?) -->\n.*?<!-- end -->", replace, page, flags=re.DOTALL)


def _short(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
