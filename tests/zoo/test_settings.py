import dataclasses

import pytest

from qbench.zoo.denoiser_training import TINY_DDIM


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [TINY_DDIM.rate(iteration) for iteration in range(TINY_DDIM.iterations)]
    peak = rates.index(max(rates))
    assert peak == TINY_DDIM.warmup - 1
    assert rates[0] == pytest.approx(TINY_DDIM.learning_rate / TINY_DDIM.warmup)
    assert rates[peak] == pytest.approx(TINY_DDIM.learning_rate, rel=0.01)
    assert rates[TINY_DDIM.iterations // 2] == pytest.approx(TINY_DDIM.learning_rate / 2)
    assert 0 < rates[-1] < 1e-8


def test_the_running_average_follows_quickly_at_first() -> None:
    assert TINY_DDIM.averaging(0) == 0.1
    assert TINY_DDIM.averaging(10**6) == TINY_DDIM.ema_decay


def test_settings_are_frozen_and_described_in_full() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY_DDIM.seed = 1  # type: ignore[misc]
    assert TINY_DDIM.described().keys() == {field.name for field in dataclasses.fields(TINY_DDIM)}
