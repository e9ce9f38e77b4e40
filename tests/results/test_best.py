from collections.abc import Callable
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.best import Contest, contests

MakeRecord = Callable[..., Record]
GROUPS = 20


@pytest.fixture
def cell(make_record: MakeRecord) -> MakeRecord:
    """Return a function that makes a cell whose figure is sure up to some noise of its own."""

    def make(label: str, value: float, noise: float = 0.0, metric: str = "distance", **changes: Any) -> Record:
        phase = sum(map(ord, label))  # noise that rows do not share
        without = [value + noise * (-1) ** (group * phase + group // 3) for group in range(GROUPS)]
        figure = {"value": value, "samples": 12, "without": without}
        if label != "full-precision":
            figure |= {"delta": value - 1, "low": value - 1 - noise, "high": value - 1 + noise}
        coverage = changes.pop("coverage", 0.99)
        profile = {"size_mb": 1.0, "coverage_macs": coverage, "coverage_parameters": 1.0, "left_out": []}
        return make_record(label, figures={metric: figure}, **({"profile": profile} | changes))

    return make


def only(found: list[Contest]) -> Contest:
    assert len(found) == 1
    return found[0]


class TestWhoWins:
    def test_what_is_better_than_every_other_for_sure(self, cell: MakeRecord):
        records = [cell("a", 2.0), cell("b", 1.0), cell("c", 3.0)]
        found = only(contests(records, ["distance"]))
        assert (found.workload, found.bits, found.boundary_bits, found.metric) == ("micro", "W4A8", 8, "distance")
        assert (found.winner, found.leaders, found.runner_up) == ("b", ("b",), "a")
        assert found.ranking == ("b", "a", "c")
        assert found.difference is not None
        assert (found.difference.delta, found.difference.is_conclusive) == (-1.0, True)

    def test_nobody_where_the_best_cannot_be_told_apart(self, cell: MakeRecord):
        records = [cell("a", 1.0, noise=0.2), cell("b", 1.1), cell("c", 9.0)]
        found = only(contests(records, ["distance"]))
        assert (found.winner, found.leaders) == (None, ("a", "b"))

    def test_the_second_may_be_told_apart_and_the_third_not(self, cell: MakeRecord):
        records = [cell("a", 1.0), cell("b", 1.1), cell("c", 1.5, noise=0.9)]
        found = only(contests(records, ["distance"]))
        assert (found.winner, found.leaders, found.runner_up) == (None, ("a", "c"), "b")

    def test_more_may_be_better(self, cell: MakeRecord, make_record: MakeRecord):
        info = make_record().metrics["distance"].model_copy(update={"direction": "higher"})
        records = [each.model_copy(update={"metrics": {"distance": info}}) for each in (cell("a", 2.0), cell("b", 1.0))]
        assert only(contests(records, ["distance"])).winner == "a"

    def test_a_metric_without_intervals_has_no_winner(self, cell: MakeRecord):
        records = [
            each.model_copy(
                update={
                    "figures": {
                        "distance": each.figures["distance"].model_copy(
                            update={"without": [], "low": None, "high": None}
                        )
                    }
                }
            )
            for each in (cell("a", 2.0), cell("b", 1.0))
        ]
        found = only(contests(records, ["distance"]))
        assert (found.winner, found.leaders) == (None, ("b", "a"))

    def test_equal_rows_have_no_winner(self, cell: MakeRecord):
        found = only(contests([cell("a", 1.0), cell("b", 1.0)], ["distance"]))
        assert (found.winner, found.leaders) == (None, ("a", "b"))

    def test_nothing_wins_alone(self, cell: MakeRecord):
        found = only(contests([cell("full-precision", 0.5, bits="W32A32"), cell("a", 1.0)], ["distance"]))
        assert (found.winner, found.leaders, found.runner_up, found.difference) == (None, ("a",), None, None)


class TestWhoCompetes:
    def test_rows_of_equal_bits_and_exceptions(self, cell: MakeRecord):
        records = [
            cell(label, value, bits=bits, boundary_bits=boundary, workload=workload)
            for workload in ("micro", "other")
            for bits in ("W4A8", "W8A8")
            for boundary in (8, None)
            for label, value in (("a", 1.0), ("b", 2.0))
        ]
        found = contests(records, ["distance"])
        assert [(each.workload, each.bits, each.boundary_bits, each.winner) for each in found] == [
            (workload, bits, boundary, "a")
            for workload in ("micro", "other")
            for bits in ("W4A8", "W8A8")
            for boundary in (8, None)
        ]

    def test_a_row_that_leaves_more_out_does_not(self, cell: MakeRecord):
        records = [cell("a", 1.0, coverage=0.90), cell("b", 2.0, coverage=0.99), cell("c", 3.0, coverage=0.981)]
        found = only(contests(records, ["distance"]))
        assert (found.winner, found.ranking) == ("b", ("b", "c"))
        assert found.lower_coverage == found.out == (("a", "90.0 % of MACs quantized, of others 99.0 %"),)

    def test_a_row_of_which_nobody_knows_what_is_quantized_does_not(self, cell: MakeRecord):
        found = only(contests([cell("a", 1.0, profile=None), cell("b", 2.0), cell("c", 3.0)], ["distance"]))
        assert found.winner == "b"
        assert [label for label, _ in found.lower_coverage] == ["a"]

    def test_what_failed_or_was_not_run_does_not(self, cell: MakeRecord, make_record: MakeRecord):
        lost = make_record("lost", status="failed", reason="no", failures={"distance": "no"}, figures={})
        both = cell("both", 0.1, status="failed", reason="no", failures={"distance": "no"})
        later = make_record("later", status="pending", figures={}, profile=None)
        other = make_record("other", figures={})
        found = only(contests([lost, both, later, other, cell("a", 1.0), cell("b", 2.0)], ["distance"]))
        assert found.winner == "a"
        assert found.out == (("lost", "failed"), ("both", "failed"), ("later", "not run"), ("other", "no figure"))
        assert found.lower_coverage == ()

    def test_before_anything_is_run_nobody_does(self, make_record: MakeRecord):
        pending = [make_record(label, status="pending", figures={}, profile=None) for label in ("a", "b")]
        found = only(contests(pending, ["distance"]))
        assert (found.winner, found.leaders, found.ranking) == (None, (), ())

    def test_each_metric_that_a_row_has_is_a_contest(self, cell: MakeRecord):
        found = contests([cell("a", 1.0), cell("b", 2.0)], ["distance", "mse-to-fp", "unknown"])
        assert [(each.metric, each.winner) for each in found] == [("distance", "a"), ("mse-to-fp", None)]


class TestSeeds:
    def test_means_compete_and_every_seed_has_to_agree(self, cell: MakeRecord):
        def rows(*values: float) -> list[Record]:
            own = [cell("a", value, seed=seed) for seed, value in enumerate(values)]
            return [*own, *(cell("b", 2.0, seed=seed) for seed in range(len(values)))]

        sure = only(contests(rows(1.0, 1.5, 1.9), ["distance"]))
        assert (sure.winner, sure.difference is not None and sure.difference.seeds) == ("a", 3)
        assert sure.difference is not None
        assert sure.difference.delta == pytest.approx(-1.6 / 3)
        unsure = only(contests(rows(1.0, 1.0, 2.1), ["distance"]))
        assert (unsure.winner, unsure.leaders) == (None, ("a", "b"))

    def test_a_row_that_lacks_a_seed_does_not_compete(self, cell: MakeRecord, make_record: MakeRecord):
        records = [cell(label, value, seed=seed) for label, value in (("a", 2.0), ("b", 3.0)) for seed in (0, 1)]
        records += [cell("c", 1.0, seed=0), make_record("c", status="failed", failures={"distance": "no"}, seed=1)]
        records.append(cell("d", 1.0, seed=1))
        found = only(contests(records, ["distance"]))
        assert (found.winner, found.ranking) == ("a", ("a", "b"))
        assert found.out == (("c", "failed at seed 1"), ("d", "no figure at seed 0"))

    @pytest.mark.parametrize("lost", ["failed", "only the profile is there", "not run"])
    def test_a_seed_that_nobody_has_yet_does_not_count(self, lost: str, cell: MakeRecord, make_record: MakeRecord):
        changes: dict[str, dict[str, Any]] = {
            "failed": {"status": "failed", "reason": "no", "failures": {"distance": "no"}},
            "only the profile is there": {"status": "pending"},
            "not run": {"status": "pending", "profile": None},
        }
        records = [cell(label, value, seed=0) for label, value in (("a", 1.0), ("b", 3.0))]
        records += [make_record(label, seed=1, figures={}, **changes[lost]) for label in ("a", "b")]
        found = only(contests(records, ["distance"]))
        assert (found.winner, found.ranking, found.out) == ("a", ("a", "b"), ())
        assert found.difference is not None
        assert (found.difference.delta, found.difference.seeds) == (-2.0, 1)

    def test_what_is_said_of_a_row_is_of_the_seed_that_it_lacks(self, cell: MakeRecord, make_record: MakeRecord):
        records = [cell("a", 1.0, seed=0), make_record("a", seed=1, figures={}, status="pending")]
        records += [make_record("b", seed=0, figures={}, status="pending")]
        records += [make_record("b", seed=1, figures={}, status="failed", reason="no", failures={"distance": "no"})]
        assert only(contests(records, ["distance"])).out == (("b", "not run at seed 0"),)
