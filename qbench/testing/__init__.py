"""Contract checks for plugin authors, each one line of a test, and the templates of ``qbench methods new``.

Names are loaded at first use: ``qbench methods new`` needs none of what the checks need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qbench.testing.method import check_method
    from qbench.testing.metric import check_metric
    from qbench.testing.report import ContractViolation, Report
    from qbench.testing.workload import check_workload

_HOMES = {
    "ContractViolation": "report",
    "Report": "report",
    "check_method": "method",
    "check_metric": "metric",
    "check_workload": "workload",
}
__all__ = ["ContractViolation", "Report", "check_method", "check_metric", "check_workload"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
