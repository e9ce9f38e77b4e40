"""What cells cost, in Markdown: seconds, memory, and a call of the denoiser where that was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from statistics import fmean

from qbench.records import LatencyInfo, Record
from qbench.results.costs import (
    FAILED,
    NOTHING,
    SIMULATED,
    calibration_seconds,
    number_text,
    peak_memory_mb,
    sampling_seconds,
    seconds_text,
    speed_up_text,
)
from qbench.results.markdown import escaped, item, markdown_rows
from qbench.results.table_model import Column
from qbench.results.wording import BOUNDARY, boundary_text, cell_text, label_text, varying

CELL_NOTES = (
    "calibration s: seconds for calibration data, weights, activations and correction; what several cells share "
    "counts in each of them.",
    "sampling s: seconds for all images of the cell.",
    "peak memory MB: the most memory that a process held by the end of any stage of the cell, libraries and earlier "
    "stages included.",
    "packed MB: the checkpoint as it is stored; without quantized weights, all tensors of the denoiser.",
)
CALL_NOTES = (
    "resident MB: parameters and buffers of the denoiser as they lie in memory. Simulated quantization keeps its "
    "values in float32, so it saves nothing here.",
    "call, full precision s, and call, quantized s: median seconds of one call of the denoiser with a batch. Both were "
    "timed in turn in one run, each row at a time of its own: compare them within a row.",
    "simulated: rounded to the grid and computed in floating point. It shows the quality of low bits, not their speed, "
    "so there is no speed-up to print, be it faster or slower.",
    "speed-up: full precision's seconds divided by those with integer kernels, which were really run, by the vector "
    "instructions in parentheses.",
    "int8 difference: squared norm of the difference between the output of the integer kernels and the simulated one, "
    "relative to that of the output. Without VNNI instructions these kernels add products in pairs in 16 bits, which "
    "saturate, so the output is another one. int8 MACs: share of all multiply-accumulates that were done in integers.",
    "call peak MB: memory that a call needs beside what is resident.",
)
NO_CALLS = "Calls of the denoiser were not measured: latency: true in the suite asks for that."
Row = Sequence[Record]


def costs_markdown(records: Sequence[Record]) -> str:
    """Return a table for each workload, on what calls were measured, and what the columns stand for.

    Cells that differ in the seed alone are one row: the mean of their seconds, the largest of their memory.

    Args:
        records: of one suite.
    """
    if not records:
        return "No records.\n"
    parts = [f"# {escaped(records[0].suite.title)}: what it costs"]
    ordered = sorted(records, key=lambda record: record.workload)
    for workload, group in groupby(ordered, key=lambda record: record.workload):
        parts += [f"## {escaped(workload)}", *_workload(list(group))]
    failed = {cell_text(record): record.latency_failure for record in records}
    parts += _listed("Calls that could not be measured:", failed)
    simulated = {cell_text(record): record.latency.int8_reason for record in records if record.latency}
    parts += _listed("W8A8 without integer kernels:", simulated)
    notes = CELL_NOTES + (CALL_NOTES if any(record.has_latency for record in records) else (NO_CALLS,))
    parts.append("\n".join(map(item, notes)))
    return "\n\n".join(parts) + "\n"


def cost_facts(record: Record) -> list[tuple[str, str]]:
    """Return what a cell cost as pairs of name and text; what is not known is left out."""
    seconds = {"calibration": calibration_seconds(record), "sampling": sampling_seconds(record)}
    found = [(name, seconds_text(each)) for name, each in seconds.items() if each is not None]
    peak = peak_memory_mb(record)
    found += [] if peak is None else [("peak memory", f"{number_text(peak)} MB")]
    if record.latency_failure:
        found.append(("latency", f"{FAILED}: {record.latency_failure}"))
    if record.latency is None:
        return found
    latency = record.latency
    found += [
        ("memory of the network", f"{number_text(latency.resident_mb)} MB, and {_peak(latency)} MB during a call"),
        ("call in full precision", f"{_full_precision(latency)} s"),
    ]
    if latency.quantized is not None:
        found += [("call quantized", f"{_quantized(latency)} s"), ("speed-up", speed_up_text(record))]
    if latency.int8 is not None:
        found.append(("int8 against simulated", f"{_difference(latency)} (relative), {_macs(latency)} of MACs in int8"))
    elif latency.int8_reason:
        found.append(("no int8", latency.int8_reason))
    return [*found, ("calls measured", _measured_on(latency))]


def _workload(records: Sequence[Record]) -> Iterable[str]:
    seeds = sorted({record.seed for record in records})
    timed = sorted({record.seed for record in records if record.latency})
    told = [_machines(records)]
    if len(seeds) > 1:
        told.append(f"mean over seeds {_listing(seeds)}" + (f", calls of seed {_listing(timed)}" if timed else ""))
    yield escaped(f"{'; '.join(told)}.")
    rows = _rows(records)
    columns = _columns(records)
    yield markdown_rows([column for column, _ in columns], [[text(row) for _, text in columns] for row in rows])
    measured = dict.fromkeys(_measured_on(record.latency) for record in records if record.latency)
    for place in measured:
        yield escaped(place)


def _rows(records: Sequence[Record]) -> list[Row]:
    found: dict[tuple[str, str, int | None], list[Record]] = {}
    for record in records:
        found.setdefault((record.label, record.bits, record.boundary_bits), []).append(record)
    return list(found.values())


def _columns(records: Sequence[Record]) -> list[tuple[Column, Callable[[Row], str]]]:
    found: list[tuple[Column, Callable[[Row], str]]] = [
        (Column("method", is_words=True), lambda row: escaped(label_text(row[0]))),
        (Column("bits", is_words=True), lambda row: escaped(row[0].bits)),
    ]
    if BOUNDARY in varying(records):
        found.append((Column(BOUNDARY), lambda row: boundary_text(row[0].boundary_bits)))
    found += [
        (Column("calibration s"), lambda row: _mean(map(calibration_seconds, row))),
        (Column("sampling s"), lambda row: _mean(map(sampling_seconds, row))),
        (Column("peak memory MB"), lambda row: number_text(_largest(map(peak_memory_mb, row)))),
        (Column("packed MB"), lambda row: _packed(row)),
    ]
    if any(record.has_latency for record in records):
        found += [
            (Column("resident MB"), lambda row: _of_calls(row, lambda each: number_text(each.resident_mb))),
            (Column("call peak MB"), lambda row: _of_calls(row, _peak)),
            (Column("call, full precision s"), lambda row: _of_calls(row, _full_precision)),
            (Column("call, quantized s"), lambda row: _of_calls(row, _quantized)),
            (Column("speed-up", is_words=True), lambda row: escaped(speed_up_text(_with_call(row)))),
        ]
    if any(record.latency and record.latency.int8 for record in records):
        found += [
            (Column("int8 difference"), lambda row: _of_calls(row, _difference)),
            (Column("int8 MACs"), lambda row: _of_calls(row, _macs)),
        ]
    return found


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number_text(fmean(known) if known else None)


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _packed(row: Row) -> str:
    sizes = [record.profile.size_mb for record in row if record.profile is not None]
    return f"{max(sizes):.2f}" if sizes else NOTHING


def _with_call(row: Row) -> Record:
    """Return the seed whose calls were measured, or the first."""
    return next((record for record in row if record.has_latency), row[0])


def _of_calls(row: Row, text: Callable[[LatencyInfo], str]) -> str:
    record = _with_call(row)
    if record.latency is None:
        return FAILED if record.latency_failure else NOTHING
    return text(record.latency)


def _full_precision(latency: LatencyInfo) -> str:
    return number_text(latency.full_precision.seconds)


def _quantized(latency: LatencyInfo) -> str:
    if latency.quantized is None:
        return NOTHING
    told = f"{number_text(latency.quantized.seconds)} {SIMULATED}"
    return told if latency.int8 is None else f"{number_text(latency.int8.seconds)} int8, {told}"


def _peak(latency: LatencyInfo) -> str:
    return number_text((latency.quantized or latency.full_precision).peak_mb)


def _difference(latency: LatencyInfo) -> str:
    return NOTHING if latency.int8 is None else number_text(latency.int8.difference)


def _macs(latency: LatencyInfo) -> str:
    return NOTHING if latency.int8 is None else f"{100 * latency.int8.macs:.0f} %"


def _listing(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def _threads(count: object) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def _machines(records: Sequence[Record]) -> str:
    """Return what cells were made on."""
    found = dict.fromkeys(_machine(record) for record in records if record.environment)
    return "Made on " + ("; ".join(found) if found else "a machine that is not known")


def _machine(record: Record) -> str:
    environment = record.environment
    name = environment.get("device_name") or environment.get("processor")
    device = str(environment.get("device", "?"))
    return f"{f'{device} ({name})' if name else device}, {_threads(environment.get('threads', '?'))}"


def _measured_on(latency: LatencyInfo) -> str:
    parts = [latency.device, latency.device_name, latency.instructions, _threads(latency.threads), latency.dtype]
    where = ", ".join(part for part in parts if part)
    compiled = "compiled" if latency.compiled else "not compiled"
    return f"Calls of batch {latency.batch} at step {latency.step_index} of the sampler on {where}, {compiled}."


def _listed(title: str, reasons: Mapping[str, str | None]) -> list[str]:
    sentences = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    return [f"{title}\n\n" + "\n".join(map(item, sentences))] if sentences else []
