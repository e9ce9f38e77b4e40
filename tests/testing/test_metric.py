"""Each clause of the metrics' contract is broken by a metric that breaks nothing else."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qbench.metrics.metric import PIXELS, Against, Gaussian, Measured, Need, RowsMetric, SumMetric
from qbench.plugins import METRICS
from qbench.testing import ContractViolation, check_metric
from qbench.testing.metric import CLAUSES

if TYPE_CHECKING:
    from qbench.metrics.metric import Array, Sums
    from qbench.metrics.rows import Rows

IMPORT_ASIDE = {"import"}
"""What holds of a module of its own, and not of this one."""


class Good(SumMetric):
    title = "mean pixel"
    need = PIXELS
    against = Against.NOTHING
    direction = "higher"
    protocol = "mean over pixels"

    def sums(self, rows: "Array", paired: "Array | None") -> "Sums":
        return {"count": np.asarray(float(len(rows))), "sum": np.asarray(rows.mean(axis=(1, 2, 3)).sum())}

    def compute(self, sums: "Sums", reference: Gaussian | None) -> float:
        return float(sums["sum"] / sums["count"])


class NoProtocol(Good):
    protocol = ""


class Endless(Good):
    def compute(self, sums: "Sums", reference: Gaussian | None) -> float:
        return float("inf")


class ReturnsArrays(Good):
    def compute(self, sums: "Sums", reference: Gaussian | None) -> Any:
        return sums["sum"]


class AddsMeans(Good):
    def sums(self, rows: "Array", paired: "Array | None") -> "Sums":
        return {"count": np.asarray(1.0), "sum": np.asarray((rows**2).mean())}


class Draws(Good):
    def compute(self, sums: "Sums", reference: Gaussian | None) -> float:
        return float(sums["count"] + np.random.default_rng().random())


class ForgetsGroups(Good):
    def measure(self, samples: "Rows", against: "Gaussian | Rows | None", groups: int) -> Measured:
        found = super().measure(samples, against, groups)
        return Measured(found.value, found.without[::-1])


class Seeds(Good):
    def compute(self, sums: "Sums", reference: Gaussian | None) -> float:
        np.random.seed(3)
        return super().compute(sums, reference)


class Features(RowsMetric):
    title = "spread of features"
    need = Need("fashion", "pooled")
    against = Against.REFERENCE
    direction = "higher"
    protocol = "distance of mean features"

    def compute(self, samples: "Rows", against: "Rows | None") -> float:
        assert against is not None
        return float(((samples[:].mean(0) - against[:].mean(0)) ** 2).sum())


def broken(metric: Any) -> tuple[set[str], str]:
    with pytest.raises(ContractViolation) as caught:
        check_metric(metric)
    return {violation.clause for violation in caught.value.violations} - IMPORT_ASIDE, str(caught.value)


@pytest.mark.parametrize("metric", [Good, Features])
def test_a_good_metric_breaks_nothing(metric: Any) -> None:
    assert broken(metric)[0] == set()


@pytest.mark.parametrize(
    ("metric", "clauses", "words"),
    [
        (NoProtocol, {"declaration"}, "it has no protocol"),
        (Endless, {"figure"}, "is inf, no finite float"),
        (ReturnsArrays, {"figure"}, "no finite float"),
        (AddsMeans, {"shards"}, "the sum 'count' of all images is not that of some plus"),
        (Draws, {"repeatable", "shards", "groups"}, "the same images have two figures"),
        (ForgetsGroups, {"groups"}, "without the second group it gives"),
        (Seeds, {"process"}, "it changes numpy's global random numbers"),
    ],
)
def test_each_clause_is_broken_alone(metric: Any, clauses: set[str], words: str) -> None:
    found, text = broken(metric)
    assert found >= clauses if metric is AddsMeans else found == clauses
    assert words in text


@pytest.mark.parametrize("name", ["mse-to-fp", "psnr-to-fp"])
def test_metrics_of_pixels_keep_the_contract(name: str) -> None:
    assert name in METRICS.names()
    assert check_metric(name).passed == tuple(clause.name for clause in CLAUSES)


def test_features_can_be_of_any_width() -> None:
    assert check_metric("fd-fashion-to-fp", row_shape=(5,)).passed
