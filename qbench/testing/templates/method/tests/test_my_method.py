"""my-method keeps the contract of qbench's methods."""

from qbench.testing import check_method


def test_contract() -> None:
    """Each clause that is broken is told with what to do about it."""
    check_method("my-method")
