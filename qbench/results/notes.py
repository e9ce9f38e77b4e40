"""What has to be known of a table and does not stand in it: plain sentences, whatever they are printed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from qbench.metrics.confidence import GROUPS
from qbench.records import MetricInfo, Record
from qbench.results.best import Contest
from qbench.results.wording import (
    ELSEWHERE,
    EXTERNAL,
    INCONCLUSIVE,
    boundary_text,
    cell_text,
    is_about_quality,
    references,
)

MANY = 12
"""Of more layers that were left out, only so many are named."""
UNPAIRED = (
    "Rows are paired by noise where both records hold figures without groups of images; where one does not, the "
    "intervals of their differences from full precision must not overlap. "
)
"""What the bold rule does with records of older versions."""


class Note(NamedTuple):
    """A sentence below a table.

    Attributes:
        text: the sentence.
        term: what it explains, which stands in front of it; may be empty.
    """

    text: str
    term: str = ""


def column_notes(records: Sequence[Record], metrics: Mapping[str, MetricInfo]) -> list[Note]:
    """Return what each metric stands for, its weights, and what not to conclude from it."""
    return [_column(name, info, references(records, name)) for name, info in metrics.items()]


def row_notes(records: Sequence[Record], metrics: Mapping[str, MetricInfo], contests: Sequence[Contest]) -> list[Note]:
    """Return how figures, marks and coverage are to be read."""
    notes = []
    figures = [figure for record in records for figure in record.figures.values()]
    has_intervals = any(figure.low is not None for figure in figures)
    several_seeds = len({record.seed for record in records}) > 1
    if has_intervals:
        unpaired = f" (not so for rows marked '{ELSEWHERE}' from other noise)" if _has_external(records) else ""
        notes.append(
            "Brackets are 95 % intervals of the difference from full precision, over the images drawn, paired by "
            f"noise{unpaired} (delete-a-group jackknife, 20 groups), at this number of samples. They do not cover "
            f"calibration or training seeds. Where one holds zero, the difference is {INCONCLUSIVE}: its sign is not "
            "known from these images."
        )
    if any(len(contest.ranking) > 1 for contest in contests):
        agreement = " and every seed agrees" if several_seeds else ""
        where = ", over all seeds that have one" if several_seeds else ""
        is_paired = all(len(figure.without) == GROUPS for figure in figures if figure.low is not None)
        how = ", paired by noise," if is_paired else ""
        other = "" if is_paired else UNPAIRED
        notes.append(
            f"Bold is the best figure of equal bits{where}, marked only where the 95 % interval of its difference from "
            f"every other row{how} excludes zero{agreement}; how many rows there are is not corrected for. "
            f"{other}A row that quantizes less of the network than others, by more than one percent of all MACs, does "
            "not compete, nor does a metric without intervals."
        )
    if several_seeds:
        brackets = "the interval of the mean difference stands in brackets, " if has_intervals else ""
        notes.append(
            "Seeds set calibration and sampling noise; the trained model is the same for all. Over seeds, "
            f"{brackets}the lowest and highest seed in parentheses."
        )
    if any(not is_about_quality(info) for info in metrics.values()):
        notes.append(
            "Columns that end in -to-fp compare with the full-precision images of the same noise: they measure "
            "fidelity, not quality, and full precision has none."
        )
    if _has_external(records):
        notes.append(
            f"Rows marked '{ELSEWHERE}' are images or weights of another program: bits are what their makers say, "
            "and where images come from other noise nothing is compared pair by pair."
        )
    notes.append(
        "MACs quantized: share of the denoiser's multiply-accumulates, attention products included, whose operands "
        "have the bits that the cell asks for. Products of two activations count only where activations are "
        "quantized. Parameters quantized: share of all parameters that are stored in fewer than 32 bits."
    )
    return [Note(text) for text in notes]


def failed_cells(records: Iterable[Record]) -> list[str]:
    """Return each cell that failed with its reason."""
    return [f"{cell_text(record)}: {record.reason}" for record in records if record.reason]


def cells_to_come(records: Iterable[Record]) -> list[str]:
    """Return each cell that was not run to its end."""
    return [cell_text(record) for record in records if record.status == "pending"]


def layers_left_out(records: Iterable[Record]) -> list[str]:
    """Return which layers rows leave in full precision: rows that leave out the same are told together."""
    groups: dict[tuple[str, ...], dict[str, None]] = {}
    for record in records:
        if record.profile is not None and record.profile.left_out:
            rows = groups.setdefault(tuple(record.profile.left_out), {})
            rows[f"{record.label} {record.bits} on {record.workload}"] = None
    sentences = []
    for layers, rows in groups.items():
        more = f" and {len(layers) - MANY} more" if len(layers) > MANY else ""
        sentences.append(f"{', '.join(rows)}: {', '.join(layers[:MANY])}{more}")
    return sentences


def rows_that_do_not_compete(contests: Iterable[Contest]) -> list[str]:
    """Return the rows that have figures and yet are not compared with others of their bits, and why."""
    found: dict[str, None] = {}
    for contest in contests:
        exception = "" if contest.boundary_bits is None else f" ({boundary_text(contest.boundary_bits)} first, last)"
        for label, reason in contest.lower_coverage:
            found[f"{label} {contest.bits}{exception} on {contest.workload}: {reason}"] = None
    return list(found)


def _has_external(records: Iterable[Record]) -> bool:
    return any(record.method == EXTERNAL for record in records)


def _column(name: str, info: MetricInfo, compared: Mapping[str, Any]) -> Note:
    parts = [info.title, info.protocol]
    sets = {workload: f"{each.get('name')} ({_count(each.get('samples'))})" for workload, each in compared.items()}
    if len(set(sets.values())) == 1:
        parts.append(f"compared with {next(iter(sets.values()))}")
    elif sets:
        parts.append("compared with " + ", ".join(f"{each} on {workload}" for workload, each in sets.items()))
    weights = ", ".join(f"{file} {str(digest)[:12]}" for file, digest in _weights(info).items())
    parts += [f"weights {weights}"] if weights else []
    parts += [info.caveat] if info.caveat else []
    return Note(f"({info.direction} is better): {'; '.join(parts)}.", name)


def _count(samples: Any) -> str:
    return f"{samples:,}" if isinstance(samples, int) else "0"


def _weights(info: MetricInfo) -> Mapping[str, Any]:
    extractor = info.description.get("extractor")
    weights = extractor.get("weights") if isinstance(extractor, Mapping) else None
    return weights if isinstance(weights, Mapping) else {}
