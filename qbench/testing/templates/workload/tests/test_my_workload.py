"""my-workload keeps the contract of qbench's workloads."""

from qbench.testing import check_workload


def test_contract() -> None:
    """Each clause that is broken is told with what to do about it."""
    check_workload("my-workload")
