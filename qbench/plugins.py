"""Entry-point catalogues: every method, workload, metric, extractor, executor and layer comes through this door.

Listing reads package metadata and imports nothing. A plugin is imported at its first use; one that cannot be
imported keeps its name and its place in the list, with the reason, and stops only what needs it.
"""

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

from qbench.errors import PluginError, did_you_mean


@dataclass(frozen=True, order=True)
class Entry:
    """One offer of one package.

    Attributes:
        name: the public id.
        package: the distribution that offers it.
        version: that distribution's version.
        target: ``module:Class``.
    """

    name: str
    package: str
    version: str
    target: str


class Catalogue:
    """All plugins of one kind that are installed.

    Args:
        kind: the word for one of them (``"method"``); the entry-point group is ``qbench.<kind>s``.
        offers: entry points to use instead of the installed ones.
    """

    def __init__(self, kind: str, offers: Iterable[EntryPoint] | None = None) -> None:
        self.kind = kind
        self.group = f"qbench.{kind}s"
        self._offers = offers

    @cached_property
    def _by_name(self) -> dict[str, list[Entry]]:
        installed = _installed(tuple(sys.path)).select(group=self.group) if self._offers is None else self._offers
        found: dict[str, list[Entry]] = {}
        packages: dict[Distribution | None, tuple[str, str]] = {None: ("unknown", "unknown")}
        for offer in installed:
            dist = offer.dist
            if dist is not None and dist not in packages:  # it reads all its metadata each time that it is asked
                packages[dist] = (dist.name, dist.version)
            package, version = packages[dist]
            entries = found.setdefault(offer.name, [])
            # One package can be met twice: installed, and as metadata in the folder that Python was started in.
            if not any((entry.package, entry.target) == (package, offer.value) for entry in entries):
                entries.append(Entry(offer.name, package, version, offer.value))
        return {name: sorted(found[name]) for name in sorted(found)}

    def names(self) -> list[str]:
        """Return the public ids, sorted."""
        return list(self._by_name)

    def entries(self) -> list[Entry]:
        """Return every offer, sorted by name and package; a name that two packages offer is there twice."""
        return [entry for entries in self._by_name.values() for entry in entries]

    def entry(self, name: str) -> Entry:
        """Return the one offer of a name, importing nothing.

        Raises:
            PluginError: nobody offers the name, or two packages do.
        """
        entries = self._by_name.get(name)
        if entries is None:
            raise PluginError(f"unknown {self.kind} {name!r}: {did_you_mean(name, self.names())}")
        if len(entries) > 1:
            offers = " and ".join(f"{entry.package} ({entry.target})" for entry in entries)
            raise PluginError(f"the {self.kind} {name!r} is offered by {offers}: uninstall all but one of them")
        return entries[0]

    def load(self, name: str) -> type:
        """Import and return the class behind a name.

        Raises:
            PluginError: as for ``entry``; or the import raises, whatever it raises; or the target is no class.
        """
        entry = self.entry(name)
        module_name, _, attribute = entry.target.partition(":")
        try:
            found = importlib.import_module(module_name)
            for part in attribute.split("."):
                found = getattr(found, part)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, and what extensions derive from nothing else
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(
                f"the {self.kind} {name!r} of package {entry.package} cannot be imported ({reason})"
            ) from error
        if not isinstance(found, type):
            raise PluginError(f"the {self.kind} {name!r} of package {entry.package}: {entry.target} is not a class")
        return found


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Any:
    """Return what all packages on a path offer: each look goes through every package, whatever is asked for.

    Python 3.11 has another class for the answer than later ones, with the same ``select``.
    """
    return entry_points()


METHODS = Catalogue("method")
WORKLOADS = Catalogue("workload")
METRICS = Catalogue("metric")
EXTRACTORS = Catalogue("extractor")
EXECUTORS = Catalogue("executor")
LAYERS = Catalogue("layer")
CATALOGUES = (METHODS, WORKLOADS, METRICS, EXTRACTORS, EXECUTORS, LAYERS)
