"""Where a row of ours was made in another way than a published figure: what the protocol says, item by item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from qbench.bits import FULL_PRECISION_BITS, BitWidth
from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.errors import SuiteError
from qbench.records import Record
from qbench.results.published import PublishedFigure
from qbench.results.published_schema import UNKNOWN, Protocol

SAMPLER_WORDS = {
    "steps": "number of steps",
    "name": "sampler",
    "eta": "eta",
    "spacing": "spacing of the steps",
    "guidance_scale": "guidance scale",
}
"""What is compared of a sampler, in this order."""
SHOWN = 3
"""How many layers, or settings, are named before the rest is counted."""


def disagreements(record: Record, figure: PublishedFigure) -> list[str]:
    """Return in one clause each where a row differs from the protocol of a published figure.

    What a source does not tell cannot be checked. Samples, steps and measurement must be told, as no figure means
    anything without them; of the first and last layer and of layers left out it is taken that there is no exception.

    Args:
        record: our row, of the figure's own workload.
        figure: what is published of it.
    """
    protocol = figure.protocol
    found = [protocol.obstacle] if protocol.obstacle else []
    found += [*_samples(record, protocol), *_sampler(record, protocol)]
    found += measurement(record, figure)
    if not figure.is_full_precision:
        found += [*_softmax(record, figure), *_boundary(record, figure), *_left_out(record, protocol)]
        found += _settings(record, protocol)
    return found


def measurement(record: Record, figure: PublishedFigure) -> list[str]:
    """Return where the figure's metric is measured in another way than the source measured it, which must be told."""
    expected, info = figure.protocol.metrics.get(figure.metric), record.metrics.get(figure.metric)
    if not expected:
        return [f"the source does not tell how {figure.metric} was measured"]
    if info is None:
        return []
    return [
        f"{figure.metric}: {_compared(path, ours, theirs)}"
        for path, ours, theirs in _differences(expected, info.description)
    ]


def _samples(record: Record, protocol: Protocol) -> Iterator[str]:
    if protocol.samples is None:
        yield "the source does not tell how many images"
    elif protocol.samples != record.samples:
        yield f"{record.samples:,} images here, {protocol.samples:,} in the source"


def _sampler(record: Record, protocol: Protocol) -> Iterator[str]:
    expected = protocol.sampler.model_dump(exclude_none=True)
    workload = record.description.get("workload")
    found = workload.get("sampler") or _inner(workload, "settings", "sampler") if isinstance(workload, Mapping) else {}
    if not isinstance(found, Mapping) or not found:
        yield "how images were sampled here is not told"
        return
    if "steps" not in expected:
        yield "the source does not tell how many steps"
    ours = _unsaid() | dict(found)
    for key, word in SAMPLER_WORDS.items():
        if key in expected and not _equal(ours.get(key), expected[key]):
            yield _compared(word, ours.get(key), expected[key])


def _unsaid() -> dict[str, Any]:
    """Return what a description of a sampler leaves out while it has its default; see ``GrowingSettings``."""
    every, said = SamplerSettings.model_fields, SamplerSettings().model_dump()
    return {name: field.default for name, field in every.items() if name not in said}


def _softmax(record: Record, figure: PublishedFigure) -> Iterator[str]:
    ours, theirs = parsed(record.bits), parsed(figure.bits)
    if ours is not None and theirs is not None and ours.softmax != theirs.softmax:
        here, there = (_bits_text(each.softmax) for each in (ours, theirs))
        yield f"softmax output {here} here, {there} in the source"


def _bits_text(bits: int | None) -> str:
    return "of no bits of its own" if bits is None else f"at {bits} bits"


def _boundary(record: Record, figure: PublishedFigure) -> Iterator[str]:
    ours = _exception(record.boundary_bits, record.bits)
    said = figure.protocol.boundary_bits
    theirs = None if isinstance(said, str) else _exception(said, figure.bits)
    if ours == theirs:
        return
    here = "no exception for the first and last layer" if ours is None else f"first and last layer at {ours} bits"
    if said == UNKNOWN:
        yield f"{here} here, of which the source tells nothing"
    else:
        yield f"{here} here, {'no exception' if theirs is None else f'{theirs} bits'} in the source"


def _exception(boundary_bits: int | None, bits: str) -> int | None:
    """Return bits of the first and last layer if they differ from those of all others."""
    found = parsed(bits)
    weights = None if found is None else found.weights
    return None if weights == FULL_PRECISION_BITS or boundary_bits == weights else boundary_bits


def _left_out(record: Record, protocol: Protocol) -> Iterator[str]:
    if record.profile is None:
        if record.status == "complete":
            yield "which layers were left out here is not known"
        return
    ours = record.profile.left_out
    if isinstance(protocol.left_out, str):
        if ours:
            yield f"{_some(ours)} left out here, of which the source tells nothing"
        return
    patterns = protocol.left_out
    more = [name for name in ours if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    fewer = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in ours)]
    if more:
        yield f"{_some(more)} left out here, not in the source"
    if fewer:
        yield f"{_some(fewer)} left out in the source, not here"


def _settings(record: Record, protocol: Protocol) -> Iterator[str]:
    found = list(_differences(protocol.settings, _inner(record.description, "method", "settings")))
    if found:
        yield f"settings: {_some([_compared(*each) for each in found], '; ')}"


def _differences(expected: Mapping[str, Any], found: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, ours and theirs of each value of ``expected`` that ``found`` does not have."""
    for key, value in expected.items():
        ours = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(value, Mapping):
            yield from _differences(value, ours, f"{prefix}{key}.")
        elif not _equal(ours, value):
            yield f"{prefix}{key}", ours, value


def _equal(ours: Any, theirs: Any) -> bool:
    """Whether two values are the same; true is not 1."""
    return isinstance(ours, bool) == isinstance(theirs, bool) and bool(ours == theirs)


def _compared(what: str, ours: Any, theirs: Any) -> str:
    return f"{what} {_value(ours)} here, {_value(theirs)} in the source"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    try:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    except ValueError:  # YAML can express whole numbers that Python refuses to print
        return "a number too long to print"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _some(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - SHOWN
    return separator.join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _inner(found: Any, *keys: str) -> Any:
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def parsed(bits: str) -> BitWidth | None:
    """Return a bit-width; None if a record says something else, which then agrees with nothing."""
    try:
        return BitWidth.parse(bits)
    except SuiteError:
        return None
