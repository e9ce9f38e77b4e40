"""What a suite needs that the package does not hold, and what of it is missing on this disk. Never uses the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qbench import plugins
from qbench.errors import DataError, PluginError
from qbench.identity import canonical_json
from qbench.metrics.extractor import Extractor
from qbench.plugin import blaming, create
from qbench.workloads.assets import Asset, Source
from qbench.workloads.disk_space import size_text

if TYPE_CHECKING:
    from qbench.metrics.metric import Metric
    from qbench.suite import Suite
    from qbench.workload import Workload


@dataclass(frozen=True)
class Wanted:
    """An asset and who needs it.

    Attributes:
        asset: the asset.
        users: labels of workloads and ids of metrics.
        is_essential: whether a workload is among them: nothing of it can run without the asset, while a metric's
            weights fail its own figures only.
    """

    asset: Asset
    users: tuple[str, ...]
    is_essential: bool


@dataclass(frozen=True)
class Wants:
    """All that is needed.

    Attributes:
        wanted: each asset once, those of workloads first.
        problems: what is wrong with metrics whose settings name weights that nobody published.
    """

    wanted: tuple[Wanted, ...]
    problems: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """What is not on this disk."""
        return tuple(each for each in self.wanted if each.asset.find() is None)


def suite_wants(suite: Suite) -> Wants:
    """Return what a suite's workloads and metrics need.

    Raises:
        PluginError: a metric needs an extractor that nobody offers, or a plugin's own code raises.
    """
    workloads = {cell.workload_label: cell.workload for cell in suite.cells}
    metrics = {metric.name: metric for cell in suite.cells for metric in cell.metrics}
    return wants(workloads.items(), metrics.values())


def wants(workloads: Iterable[tuple[str, Workload]], metrics: Iterable[Metric]) -> Wants:
    """Return what workloads, by label, and metrics need.

    Raises:
        PluginError: as for ``suite_wants``.
    """
    found: dict[Source, Wanted] = {}
    problems: dict[str, None] = {}

    def add(assets: Sequence[Asset], user: str, is_essential: bool) -> None:
        for asset in assets:
            known = found.get(asset.source, Wanted(asset, (), is_essential))
            found[asset.source] = Wanted(known.asset, (*known.users, user), known.is_essential or is_essential)

    for label, workload in workloads:
        with blaming(f"the workload {workload.name!r}"):
            add(workload.assets(), label, True)
    extractors: dict[tuple[str, str], Extractor] = {}
    for metric in metrics:
        with blaming(f"the metric {metric.name!r}"):
            try:
                add(metric.assets(), metric.name, False)
                add(_extractor_assets(metric, extractors), metric.name, False)
            except DataError as error:
                problems[str(error)] = None
    return Wants(tuple(found.values()), tuple(problems))


def _extractor_assets(metric: Metric, known: dict[tuple[str, str], Extractor]) -> Sequence[Asset]:
    name, settings = metric.need.extractor, metric.need.settings
    if name is None:
        return ()
    key = (name, canonical_json(dict(settings)))
    if key not in known:
        place = f"the extractor {name!r} that {metric.name!r} needs"
        known[key] = create(plugins.EXTRACTORS, name, Extractor, settings, lambda _: place, PluginError)
    return known[key].assets()


def missing_assets(suite: Suite) -> tuple[Wanted, ...]:
    """Return what of a suite's needs is not on this disk.

    Raises:
        PluginError: as for ``suite_wants``.
    """
    return suite_wants(suite).missing


def check_assets(suite: Suite, command: str) -> str:
    """Refuse a suite whose workloads lack something; everything that is missing is told at once.

    Args:
        suite: what is to be run.
        command: what fetches what it needs, such as ``qbench fetch paper``.

    Returns:
        What metrics lack, whose figures will fail, and how it is got; empty if nothing.

    Raises:
        DataError: a workload lacks something.
        PluginError: as for ``suite_wants``.
    """
    missing = missing_assets(suite)
    if not missing:
        return ""
    text = f"{suite.path} needs what is not here:\n{_listed(missing, command)}"
    if any(each.is_essential for each in missing):
        raise DataError(text)
    return f"{text}\nwithout it the figures of {_users(missing)} fail, and everything else runs"


def _listed(missing: Sequence[Wanted], command: str) -> str:
    lines = [line for each in missing for line in _lines(each)]
    fetchable = [each.asset for each in missing if each.asset.is_fetchable]
    if fetchable:
        lines.append(f"get it with: {command}   ({total_text(fetchable)})")
    if len(fetchable) < len(missing):
        lines.append("what is to be brought by hand no command gets")
    return "\n".join(lines)


def _lines(wanted: Wanted) -> tuple[str, str]:
    asset = wanted.asset
    users = ", ".join(wanted.users)
    if not asset.is_fetchable:
        return f"  {asset.name} (by hand; for {users})", f"    {asset.source.complaint()}"
    return (
        f"  {asset.name} ({size_text(asset.size)}; for {users})",
        f"    {asset.source.complaint()}; from {asset.source.origin}",
    )


def total_text(assets: Sequence[Asset]) -> str:
    """Return how much some assets are together, as far as it is known."""
    unknown = sum(asset.size is None for asset in assets)
    known = size_text(sum(asset.size or 0 for asset in assets))
    if not unknown:
        return known
    return f"{known} and {unknown} of unknown size" if unknown < len(assets) else "size unknown"


def _users(missing: Sequence[Wanted]) -> str:
    return ", ".join(dict.fromkeys(user for each in missing for user in each.users))
