import sys
from abc import abstractmethod
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Annotated, Any

import pytest
from pydantic import Field

from qbench.errors import PluginError, SettingsError
from qbench.method import Method
from qbench.metrics.extractor import Extractor
from qbench.metrics.metric import Metric
from qbench.plugin import Plugin, create, load_class
from qbench.plugins import EXTRACTORS, METHODS, METRICS, WORKLOADS, Catalogue, Entry
from qbench.settings import Settings, describe
from qbench.workload import Workload

BUILT_INS = [
    pytest.param(catalogue, entry.name, contract, id=f"{catalogue.kind} {entry.name}")
    for catalogue, contract in (
        (METHODS, Method),
        (WORKLOADS, Workload),
        (METRICS, Metric),
        (EXTRACTORS, Extractor),
    )
    for entry in catalogue.entries()
    if entry.package == "qbench"
]


class Inner(Settings):
    rounds: Annotated[int, Field(ge=1, description="how often")] = 3


class ToolSettings(Settings):
    inner: Annotated[Inner, Field(description="nested")] = Inner()
    alpha: Annotated[float, Field(description="a number")] = 0.5


class Tool(Plugin):
    @abstractmethod
    def use(self) -> None: ...

    @abstractmethod
    def clean(self) -> None: ...


class Hammer(Tool):
    settings_class = ToolSettings
    revision = 4

    def use(self) -> None: ...

    def clean(self) -> None: ...


class HalfATool(Tool):
    def use(self) -> None: ...


class Stranger:
    pass


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """Offers every class of this file, each under its own name."""
    shelf = ModuleType("shelf_of_tools")
    for each in (Hammer, HalfATool, Stranger, Tool):
        setattr(shelf, each.__name__, each)
    monkeypatch.setitem(sys.modules, "shelf_of_tools", shelf)
    offers = [EntryPoint(name, f"shelf_of_tools:{name}", "qbench.tools") for name in vars(shelf) if name[0] != "_"]
    return Catalogue("tool", offers)


def make(catalogue: Catalogue, settings: dict[str, Any]) -> Tool:
    return create(catalogue, "Hammer", Tool, settings, lambda location: f"here{list(location)}", SettingsError)


def test_a_class_that_fulfils_the_contract_is_returned(catalogue: Catalogue) -> None:
    assert load_class(catalogue, "Hammer", Tool) is Hammer


def test_a_class_of_another_family_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(PluginError, match=r"shelf_of_tools:Stranger does not derive from .*\.Tool"):
        load_class(catalogue, "Stranger", Tool)


def test_missing_methods_are_named(catalogue: Catalogue) -> None:
    with pytest.raises(PluginError, match=r"HalfATool does not implement clean$"):
        load_class(catalogue, "HalfATool", Tool)
    with pytest.raises(PluginError, match=r"Tool does not implement clean, use$"):
        load_class(catalogue, "Tool", Tool)


def test_settings_are_checked_and_defaults_filled_in(catalogue: Catalogue) -> None:
    tool = make(catalogue, {"inner": {"rounds": 7}})
    assert tool.name == "Hammer"
    assert tool.settings == ToolSettings(inner=Inner(rounds=7), alpha=0.5)
    with pytest.raises(SettingsError, match=r"here\['inner', 'rounds'\].*greater than or equal to 1"):
        make(catalogue, {"inner": {"rounds": 0}})
    with pytest.raises(SettingsError, match=r"here\['alhpa'\]: unknown key 'alhpa': did you mean 'alpha'\?"):
        make(catalogue, {"alhpa": 1})


def test_the_description_holds_every_setting_and_not_the_version(catalogue: Catalogue) -> None:
    described = make(catalogue, {"alpha": 1}).describe()
    assert described == {
        "name": "Hammer",
        "package": "unknown",
        "revision": 4,
        "settings": {"inner": {"rounds": 3}, "alpha": 1.0},
    }
    later = Hammer(Entry("Hammer", "unknown", "99", "elsewhere:Hammer"), ToolSettings(alpha=1))
    assert later.describe() == described


@pytest.mark.parametrize(("catalogue_of_kind", "name", "contract"), BUILT_INS)
def test_every_built_in_fulfils_its_contract(catalogue_of_kind: Catalogue, name: str, contract: type[Plugin]) -> None:
    found = load_class(catalogue_of_kind, name, contract)
    assert found.title
    assert found.settings_class() == found.settings_class.model_validate({})


@pytest.mark.parametrize(("catalogue_of_kind", "name", "contract"), BUILT_INS)
def test_every_setting_of_a_built_in_has_a_default_and_a_description(
    catalogue_of_kind: Catalogue, name: str, contract: type[Plugin]
) -> None:
    rows = describe(load_class(catalogue_of_kind, name, contract).settings_class())
    assert [setting for setting, _, _, description in rows if not description] == []
