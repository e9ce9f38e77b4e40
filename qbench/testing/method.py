"""``check_method``: a quantization method under its contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qbench.method import Method
from qbench.testing.method_clauses import CLAUSES
from qbench.testing.method_run import MethodSubject
from qbench.testing.report import Report, examine
from qbench.testing.subject import find_subject


def check_method(
    method: str | type[Method], *, settings: Mapping[str, Any] | None = None, preset: str | None = None
) -> Report:
    """Examine a method on a tiny UNet, at all bits that it claims, as a suite would run it.

    Methods that learn should be given few iterations, by a preset or by ``settings``.

    Args:
        method: public id of an installed method, or a class.
        settings: over those of the preset, written as in a suite.
        preset: one of the method's.

    Returns:
        The clauses that hold: all of them.

    Raises:
        ContractViolation: clauses are broken; an AssertionError that says which, how, and what to do.
        PluginError: nobody offers the method, or it cannot be imported.
        SettingsError: there is no such preset.
    """
    subject = find_subject("method", Method, method, settings, preset)
    given = MethodSubject(subject.kind, subject.entry, subject.found, subject.settings)
    return examine(subject.title, CLAUSES, given)
