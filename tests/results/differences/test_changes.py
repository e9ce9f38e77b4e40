from typing import Any

import pytest

from qbench.results.differences.changes import ABSENT, LONGEST, Change, changes, value_text


def test_they_are_told_by_path_in_the_order_of_the_first():
    first = {"b": {"x": 1, "y": [1, 2, {"z": 3}]}, "a": "s", "gone": None}
    second = {"a": "t", "b": {"x": 1, "y": [1, 2, {"z": 4}]}, "new": 0}
    assert changes(first, second) == [
        Change("b.y[2].z", 3, 4),
        Change("a", "s", "t"),
        Change("gone", None, ABSENT),
        Change("new", ABSENT, 0),
    ]


def test_lists_of_other_lengths_and_values_of_other_shape_differ_as_a_whole():
    assert changes([1, 2], [1]) == [Change("", [1, 2], [1])]
    assert changes({"a": {"b": 1}}, {"a": 1}) == [Change("a", {"b": 1}, 1)]


@pytest.mark.parametrize(("first", "second"), [(1, 1.0), (1, True), (0, False), (None, 0), ("1", 1)])
def test_what_python_calls_equal_may_differ(first: Any, second: Any):
    assert changes(first, second) == [Change("", first, second)]


def test_a_side_that_is_absent_has_no_key():
    assert Change("a", ABSENT, None).as_json() == {"path": "a", "second": None}


def test_a_value_is_one_short_line():
    assert value_text(ABSENT) == "absent"
    assert value_text("a\n\x1b[31mé") == '"a\\n\\u001b[31m\\u00e9"'
    assert len(value_text("x" * 1000)) == LONGEST
