"""my-metric keeps the contract of qbench's metrics."""

from qbench.testing import check_metric


def test_contract() -> None:
    """Each clause that is broken is told with what to do about it."""
    check_metric("my-metric")
