"""Each clause of the methods' contract is broken by a method that breaks nothing else."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import PluginError, SettingsError
from qbench.testing import ContractViolation, Report, check_method
from qbench.testing.method_clauses import CLAUSES
from qbench.testing.process_state import process_state

NAMES = tuple(clause.name for clause in CLAUSES)


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Any]]:
    """Return a function that imports a method of the modules beside this one."""
    monkeypatch.syspath_prepend(Path(__file__).parent)

    def find(name: str, module: str = "bad_methods") -> Any:
        return getattr(importlib.import_module(module), name)

    yield find
    for module in ("bad_methods", "bad_import", "bad_layers"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("name", ["Good", "Corrects"])
def test_a_good_method_passes_all_clauses(method: Callable[..., Any], name: str, one_thread: None) -> None:
    before = process_state()
    assert check_method(method(name)) == Report(f"method {name.lower()!r}", NAMES)
    assert process_state() == before


@pytest.mark.parametrize(
    ("name", "clauses", "words"),
    [
        ("Undescribed", ["settings"], "the setting share has no description"),
        ("NoDefault", ["import", "settings"], "the setting share has no default"),
        ("BadPreset", ["settings"], "the preset 'fast': settings.iterations: unknown key 'iterations'"),
        ("Untitled", ["identity"], "it has no title"),
        ("RandomIdentity", ["identity"], "differs between two instances"),
        ("StrangeClaim", ["claims"], "weight_bits holds 9"),
        ("AcceptsAll", ["claims"], "W5A32 is not refused, and weight_bits does not claim it"),
        ("RefusesAll", ["claims"], "it refuses all bits that it claims"),
        ("RaisesAtThree", ["runs"], "its weights: it raises ZeroDivisionError: three"),
        ("RemembersItself", ["runs"], "its activations: it raises AttributeError"),
        ("WrongSteps", ["runs"], "its correction: the step correction is for 3 steps"),
        ("TakesTheCellsBits", ["bits"], "bits where 3 are due"),
        ("LooksQuantized", ["coverage", "storage"], "has values between the 8 of its grid"),
        ("SwitchedOff", ["coverage", "storage"], "was left switched off"),
        ("HiddenHook", ["storage"], "what was stored and loaded gives another output"),
        ("DrawsGlobally", ["repeatable"], "its weights differ between two runs"),
        ("SetsTheSeed", ["process"], "it changes torch's global random numbers"),
        ("SetsTheType", ["process"], "it changes torch's default type"),
        ("InfiniteBias", ["finite"], "holds NaN or infinity"),
    ],
)
def test_each_clause_is_broken_alone(
    method: Callable[..., Any], name: str, clauses: list[str], words: str, one_thread: None
) -> None:
    before = process_state()
    with pytest.raises(ContractViolation) as caught:
        check_method(method(name))
    assert [violation.clause for violation in caught.value.violations] == clauses
    remedies = {clause.name: clause.remedy for clause in CLAUSES}
    text = str(caught.value)
    assert words in text
    assert all(remedies[clause] in text for clause in clauses)
    assert text.startswith(f"method {name.lower()!r} breaks {'1 clause' if len(clauses) == 1 else '2 clauses'} of its")
    assert isinstance(caught.value, AssertionError)
    assert process_state() == before


def test_a_module_that_imports_torch_breaks_the_first_clause(method: Callable[..., Any], one_thread: None) -> None:
    with pytest.raises(ContractViolation, match="importing bad_import imports torch") as caught:
        check_method(method("Heavy", "bad_import"))
    assert [violation.clause for violation in caught.value.violations] == ["import"]


def test_a_layer_that_looks_at_neighbours_breaks_its_clause(
    method: Callable[..., Any], install: Callable[..., None], one_thread: None
) -> None:
    install("badlayers", "[qbench.layers]\nbatchwise = bad_layers:Batchwise\n", {})
    with pytest.raises(ContractViolation, match="the first image changes with the others of its batch") as caught:
        check_method(method("LooksAtNeighbours"))
    assert [violation.clause for violation in caught.value.violations] == ["neighbours"]


def test_what_cannot_be_found_is_told() -> None:
    with pytest.raises(PluginError, match="unknown method 'lineer': did you mean 'linear'"):
        check_method("lineer")
    with pytest.raises(SettingsError, match="unknown preset 'fats' of linear: did you mean 'fast'"):
        check_method("linear", preset="fats")
    with pytest.raises(ContractViolation, match=r"settings\.weights\.estimatr: unknown key 'estimatr'"):
        check_method("linear", settings={"weights": {"estimatr": "mse"}})
