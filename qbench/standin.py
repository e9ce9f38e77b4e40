"""``--standin``: a suite scaled down so that it runs anywhere, on tiny models in place of the real ones, visibly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qbench import plugins
from qbench.errors import SuiteError
from qbench.method import Method
from qbench.plugin import load_class
from qbench.settings import Location
from qbench.suite_schema import MethodEntry, MetricEntry, StandinSchema, SuiteSchema, WorkloadEntry
from qbench.workload import Workload


@dataclass(frozen=True)
class ScaledDown:
    """A suite on stand-ins.

    Attributes:
        schema: with the stand-ins and all that they change.
        replaced: each workload that was replaced, and what stands in for it.
    """

    schema: SuiteSchema
    replaced: Mapping[str, str]


def scaled_down(schema: SuiteSchema, chosen: StandinSchema, place: Callable[[Location], str]) -> ScaledDown:
    """Return a suite with stand-ins for its workloads, fewer samples and steps, and faster presets.

    Args:
        schema: the suite.
        chosen: what it is scaled down to.
        place: turns a location inside the suite into words for messages.

    Raises:
        SuiteError: a workload has no stand-in.
        PluginError: a plugin cannot be used.
    """
    workloads: list[WorkloadEntry] = []
    replaced: dict[str, str] = {}
    labels: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for index, entry in enumerate(schema.workloads):
        found = load_class(plugins.WORKLOADS, entry.plugin, Workload)
        if found.standin_metrics:  # it is a stand-in itself
            workloads.append(entry)
            renamed |= found.standin_metrics
            continue
        if not found.standin:
            raise SuiteError(f"{place(('workloads', index))}: the workload {entry.name!r} has no stand-in")
        renamed |= load_class(plugins.WORKLOADS, found.standin, Workload).standin_metrics
        replaced[entry.name] = labels[entry.label or entry.name] = found.standin
        workloads.append(WorkloadEntry(name=found.standin, settings=dict(found.standin_settings)))
    metrics = _metrics(schema, chosen, renamed)
    return ScaledDown(
        schema.model_copy(
            update={
                "name": f"{schema.name}-standin",
                "title": f"{schema.title or schema.name} ({in_words(chosen)})",
                "workloads": tuple(workloads),
                "methods": tuple(_method(entry, chosen.preset) for entry in schema.methods),
                "metrics": metrics,
                "samples": chosen.samples,
                "steps": chosen.steps,
                "boundary_bits": chosen.boundary_bits,
                "exclude": tuple(
                    each.model_copy(update={"workload": labels.get(each.workload or "", each.workload)})
                    for each in schema.exclude
                ),
            }
        ),
        replaced,
    )


def in_words(chosen: StandinSchema) -> str:
    """Return what a suite is scaled down to, for headers."""
    boundary = "no boundary_bits" if chosen.boundary_bits is None else f"boundary_bits {chosen.boundary_bits}"
    return (
        f"stand-ins: tiny models, {chosen.steps} steps, {chosen.samples} samples, {chosen.preset} presets, {boundary}"
    )


def _method(entry: MethodEntry, preset: str) -> MethodEntry:
    if preset not in load_class(plugins.METHODS, entry.name, Method).presets:
        return entry
    label = f"{entry.label or entry.name}-{preset}"
    return entry.model_copy(update={"preset": preset, "label": label})


def _metrics(schema: SuiteSchema, chosen: StandinSchema, renamed: dict[str, str]) -> tuple[MetricEntry, ...]:
    """Return the metrics that stand in for the suite's, each once."""
    found: dict[str, MetricEntry] = {}
    for entry in (*schema.metrics, *chosen.metrics):
        name = renamed.get(entry.name, entry.name)
        settings: dict[str, Any] = {} if name != entry.name else entry.settings
        found.setdefault(name, MetricEntry(name=name, settings=settings))
    return tuple(found.values())
