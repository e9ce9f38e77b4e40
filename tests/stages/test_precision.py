from typing import Any

import pytest
import torch

from qbench.stages import precision
from qbench.stages.precision import tensor_float_32

BACKENDS: Any = torch.backends


def state() -> list[Any]:
    return [getattr(owner, name) for owner, name in precision._switches()]


@pytest.mark.parametrize(("allowed", "word"), [(False, "ieee"), (True, "tf32")])
def test_it_is_as_asked_for_inside_and_as_before_outside(allowed: bool, word: str) -> None:
    before = state()
    with tensor_float_32(allowed):
        assert set(state()) <= {word, allowed}
    assert state() == before


def test_it_is_as_before_after_a_failure() -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), tensor_float_32(True):
        _ = 1 / 0
    assert state() == before


def test_whoever_asks_the_old_way_afterwards_gets_an_answer() -> None:
    with tensor_float_32(False):
        pass
    assert (BACKENDS.cudnn.allow_tf32, BACKENDS.cuda.matmul.allow_tf32) == (True, False)


def test_the_old_interface_is_used_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        class cudnn:
            allow_tf32 = True

        class cuda:
            class matmul:
                allow_tf32 = False

    monkeypatch.setattr(precision.torch, "backends", Old)
    with tensor_float_32(False):
        assert (Old.cudnn.allow_tf32, Old.cuda.matmul.allow_tf32) == (False, False)
    assert (Old.cudnn.allow_tf32, Old.cuda.matmul.allow_tf32) == (True, False)
