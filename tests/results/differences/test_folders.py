from collections.abc import Callable

import pytest

from qbench.records import Record
from qbench.results.differences.folders import folder_difference
from qbench.results.reading import FoundRecords

MakeRecord = Callable[..., Record]


def found(*records: Record, problems: dict[str, str] | None = None) -> FoundRecords:
    return FoundRecords({f"{index}.json": record for index, record in enumerate(records)}, problems or {})


def test_equal_folders_are_the_same_whatever_their_files_are_called(make_record: MakeRecord):
    first, second = make_record("a"), make_record("b")
    difference = folder_difference({"s": found(first, second)}, {"s": found(second, first)})
    assert difference.is_same
    assert difference.same == 2


def test_cells_are_matched_by_what_they_are(make_record: MakeRecord):
    changed = make_record("b", figures={})
    difference = folder_difference(
        {"s": found(make_record("a"), make_record("b")), "t": found(make_record("a"))},
        {"s": found(changed, make_record("c"))},
    )
    assert list(difference.differing) == ["s/micro.b.W4A8.s0"]
    assert difference.only_first == ("s/micro.a.W4A8.s0", "t/micro.a.W4A8.s0")
    assert difference.only_second == ("s/micro.c.W4A8.s0",)
    assert not difference.is_unrelated


def test_unrelated_folders_have_no_cell_in_common(make_record: MakeRecord):
    difference = folder_difference({"s": found(make_record("a"))}, {"t": found(make_record("a"))})
    assert difference.is_unrelated
    assert not difference.is_same


def test_the_folders_of_two_suites_need_not_be_called_the_same(make_record: MakeRecord):
    assert folder_difference({"": found(make_record("a"))}, {"": found(make_record("a"))}).is_same


@pytest.mark.parametrize("side", [0, 1])
def test_files_that_are_not_compared_are_named(make_record: MakeRecord, side: int):
    sides = [{"s": found(make_record())}, {"s": found(make_record())}]
    sides[side] = {"s": found(make_record(), problems={"a.json": "s/records/a.json: cut off"})}
    assert folder_difference(*sides).problems == ("s/records/a.json: cut off",)


def test_figures_may_be_allowed_to_differ_a_little(make_record: MakeRecord):
    figures = [{"distance": {"value": value, "samples": 12}} for value in (1.0, 1.01)]
    sides = [{"s": found(make_record(figures=each))} for each in figures]
    assert not folder_difference(*sides).is_same
    assert folder_difference(*sides, tolerance=0.02).is_same
