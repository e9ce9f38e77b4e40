import inspect
import re

import pytest

from qbench import errors
from qbench.errors import QbenchError, did_you_mean


def _drawn_tree() -> dict[str, str | None]:
    """Parent of each name in the tree of the module's docstring, by indentation."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in inspect.getdoc(errors).splitlines():
        match = re.match(r"[│├└─ ]*(?=[A-Z]\w+(?:\s{2,}|$))", line)
        if match is None or (not parents and line.strip() != "QbenchError"):
            continue
        column, name = match.end(), line[match.end() :].split()[0]
        above = [each for each in above if each[0] < column]
        parents[name] = above[-1][1] if above else None
        above.append((column, name))
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    classes = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, QbenchError)]
    real = {each.__name__: each.__bases__[0].__name__ for each in classes}
    assert _drawn_tree() == {**real, "QbenchError": None}
    assert QbenchError.__bases__ == (Exception,)


def test_no_error_has_two_parents() -> None:
    assert all(len(each.__bases__) == 1 for each in vars(errors).values() if inspect.isclass(each) and each.__module__)


@pytest.mark.parametrize(
    ("wrong", "known", "clause"),
    [
        ("liner", ["linear", "qdiffusion"], "did you mean 'linear'?"),
        ("tiny_ddim", ["ldm-lsun-church", "tiny-ddim"], "did you mean 'tiny-ddim'?"),
        ("xyz", ["qdiffusion", "linear"], "known are linear, qdiffusion"),
        ("xyz", [], "there are none"),
    ],
)
def test_a_misspelt_name_is_helped_with(wrong: str, known: list[str], clause: str) -> None:
    assert did_you_mean(wrong, known) == clause
