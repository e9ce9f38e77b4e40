"""The plugin that is examined: found by its public id, or given as a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from qbench.errors import SettingsError, did_you_mean
from qbench.plugin import Plugin, load_class
from qbench.plugins import METHODS, METRICS, WORKLOADS, Catalogue, Entry
from qbench.settings import Location, Settings, merged, validate

PluginT = TypeVar("PluginT", bound=Plugin)
_CATALOGUES: Mapping[str, Catalogue] = {each.kind: each for each in (METHODS, METRICS, WORKLOADS)}


@dataclass(frozen=True)
class Subject(Generic[PluginT]):
    """A plugin's class with the settings that it is examined with.

    Attributes:
        kind: ``method``, ``workload`` or ``metric``.
        entry: its offer; for a class that nobody offers, one made up.
        found: the class.
        settings: plain data over the defaults.
    """

    kind: str
    entry: Entry
    found: type[PluginT]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How it is called in a report."""
        return f"{self.kind} {self.entry.name!r}"

    def make(self) -> PluginT:
        """Return a new instance, as each stage of a run makes its own.

        Raises:
            SettingsError: the settings do not fit.
        """
        return self.found(self.entry, self.checked(self.settings))

    def checked(self, settings: Mapping[str, Any]) -> Settings:
        """Return settings over the defaults, as a suite's are read.

        Raises:
            SettingsError: they do not fit.
        """
        filled = merged(self.found.settings_class().model_dump(), settings)
        return validate(self.found.settings_class, filled, self._place)

    def _place(self, location: Location) -> str:
        return ".".join(["settings", *map(str, location)])


def find_subject(
    kind: str,
    contract: type[PluginT],
    given: str | type[PluginT],
    settings: Mapping[str, Any] | None,
    preset: str | None = None,
) -> Subject[PluginT]:
    """Return what is to be examined.

    Args:
        kind: ``method``, ``workload`` or ``metric``.
        contract: the class that it must derive from.
        given: the public id of an installed plugin, or a class.
        settings: over those of the preset.
        preset: one of a method's.

    Raises:
        PluginError: the name is unknown or ambiguous, its import fails, or it is no such class.
        SettingsError: there is no such preset.
    """
    if isinstance(given, str):
        found = load_class(_CATALOGUES[kind], given, contract)
        entry = _CATALOGUES[kind].entry(given)
    else:
        found = given
        name = given.__name__.lower()
        entry = Entry(name, given.__module__.partition(".")[0], "0", f"{given.__module__}:{given.__qualname__}")
    base: Mapping[str, Any] = {}
    if preset is not None:
        presets: Mapping[str, Mapping[str, Any]] = getattr(found, "presets", {})
        if preset not in presets:
            raise SettingsError(f"unknown preset {preset!r} of {entry.name}: {did_you_mean(preset, list(presets))}")
        base = presets[preset]
    return Subject(kind, entry, found, merged(base, settings or {}))
