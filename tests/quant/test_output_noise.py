"""The noise of quantization, measured on noise that is known."""

import pytest
import torch
from torch import Tensor

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.quant import CalibrationData, OutputNoise, QuantModel, measure_noise

STEPS = torch.tensor([1, 2, 5])
OFFSET = torch.tensor([0.5, -1.5]).view(-1, 1, 1)
"""Means of the estimate's channels: they must not be taken for the bias, nor go into the slope."""


class Scaled(torch.nn.Module):
    """Puts out its input and a mean for each channel, by a convolution of one point."""

    def __init__(self) -> None:
        super().__init__()
        self.only = torch.nn.Conv2d(2, 2, 1, bias=False)
        self.only.weight.data = torch.eye(2).view(2, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x) + OFFSET


class Known(QuantModel):
    """A denoiser whose error is known at each step: slope, bias, and noise that has nothing to do with the estimate."""

    def __init__(self, slope: Tensor, bias: Tensor, deviation: Tensor) -> None:
        structure = Structure(("only", "only"), call=lambda module, x, timesteps, context: module(x))
        super().__init__(Scaled().requires_grad_(False), structure, BitWidth.parse("W4A32"))
        self.error = slope, bias, deviation

    def __call__(self, x: Tensor, timesteps: Tensor, context: object = None, steps: Tensor | None = None) -> Tensor:
        estimate = super().__call__(x, timesteps, {}, steps)
        if not self.layers["only"].tap.enabled or steps is None:
            return estimate
        slope, bias, deviation = (each[steps].view(len(x), -1, 1, 1) for each in self.error)
        return (1 + slope) * estimate + bias + deviation * 2**0.5 * torch.sin(997 * x)


def data(rows: int = 60, batch_size: int = 16) -> CalibrationData:
    x = torch.randn(rows, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    steps = STEPS[torch.arange(rows) % 3]
    return CalibrationData(x, 999 - 100 * steps, steps, batch_size, lambda done: None, calls=6)


@pytest.fixture
def known() -> Known:
    slope, deviation = torch.tensor([0, 0.1, -0.2, 0, 0, 0.4]), torch.tensor([0, 0.05, 0.1, 0, 0, 0.3])
    bias = torch.tensor([[0.0, 0], [0.3, -0.1], [0, 0.2], [0, 0], [0, 0], [-1, 1]])
    return Known(slope, bias, deviation)


def test_known_noise_is_found(known: Known) -> None:
    found = measure_noise(known, data())
    slope, bias, deviation = (each[STEPS].double() for each in known.error)
    assert found.steps.tolist() == STEPS.tolist()
    torch.testing.assert_close(found.slope(), slope, rtol=0, atol=0.005)
    torch.testing.assert_close(found.bias(slope), bias, rtol=0, atol=0.02)
    torch.testing.assert_close(found.variance(slope), deviation**2, rtol=0.03, atol=0)
    torch.testing.assert_close(found.squared_error(slope, True), (deviation / (1 + slope)) ** 2, rtol=0.03, atol=0)


def test_moments_are_those_of_all_rows_of_a_step_however_they_come(known: Known) -> None:
    given = data()
    found, other = measure_noise(known, given), measure_noise(known, data(batch_size=7))
    for index, step in enumerate(STEPS):
        x, steps = given.x[given.step_indices == step], given.step_indices[given.step_indices == step]
        estimate = (x + OFFSET).double()
        error = known(x, steps, {}, steps).double() - estimate
        flat = torch.stack([each.transpose(0, 1).flatten(1) for each in (estimate, error)])
        for channel in range(2):
            wanted = torch.cov(flat[:, channel], correction=0)
            measured = found.estimate_power[index, channel], found.covariance[index, channel]
            torch.testing.assert_close(torch.stack(measured), wanted[0], rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(found.error_power[index, channel], wanted[1, 1], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.error[index], flat[1].mean(1), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.estimate[index], flat[0].mean(1), rtol=1e-6, atol=1e-9)
    for name in ("estimate", "error", "covariance"):
        torch.testing.assert_close(getattr(found, name), getattr(other, name), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("with_bias", [False, True])
def test_the_error_that_is_left_is_told_beforehand(known: Known, with_bias: bool) -> None:
    given = data()
    found = measure_noise(known, given)
    slope = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    told = found.squared_error(slope, with_bias)
    for index, step in enumerate(STEPS):
        x = given.x[given.step_indices == step]
        estimate = (x + OFFSET).double()
        output = known(x, x[:, 0, 0, 0], {}, step.expand(len(x))).double()
        bias = found.bias(slope)[index].view(2, 1, 1) if with_bias else 0.0
        left = ((output - bias) / (1 + slope[index]) - estimate).square().mean()
        torch.testing.assert_close(told[index], left, rtol=1e-6, atol=0)


def test_where_there_is_no_error_there_is_nothing_to_take_back() -> None:
    none = torch.zeros(6)
    found = measure_noise(Known(none, torch.zeros(6, 2), none), data())
    slope = found.slope()
    assert slope.tolist() == found.variance(slope).tolist() == [0.0] * 3
    assert found.bias(slope).tolist() == [[0.0] * 2] * 3


def test_an_estimate_that_never_changes_has_no_slope() -> None:
    moments = [torch.full((1, 2), each, dtype=torch.float64) for each in (2.0, 1.0, 0.0, 0.0, 0.5)]
    found = OutputNoise(torch.tensor([0]), *moments)
    assert found.slope().tolist() == [0.0]
    assert found.variance(found.slope()).tolist() == [0.5]
