"""Estimates of full precision and of the quantized denoiser, at the same inputs."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Context, Structure
from qbench.errors import StageError
from qbench.quant import CalibrationData, QuantModel, WeightRanges, estimate_pairs, set_weight_grids


class Conditioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 3)


def call(module: nn.Module, x: Tensor, timesteps: Tensor, context: Context) -> Tensor:
    hidden: Tensor = module.get_submodule("first")(x) + timesteps[:, None]
    estimate: Tensor = module.get_submodule("last")(hidden + context.get("text", torch.zeros(len(x), 1)))
    return estimate


@pytest.fixture
def model() -> QuantModel:
    torch.manual_seed(0)
    found = QuantModel(
        Conditioned().requires_grad_(False), Structure(("first", "last"), call=call), BitWidth.parse("W3A32")
    )
    set_weight_grids(found, WeightRanges())
    return found


def data(count: int, **values: object) -> CalibrationData:
    steps = torch.arange(count) // 2
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    made = CalibrationData(x, 10 - steps, steps, batch_size=4, report=lambda done: None)
    return replace(made, **values)  # type: ignore[arg-type]


def test_each_row_comes_once_with_both_estimates_and_its_step(model: QuantModel) -> None:
    shares: list[float] = []
    given = data(10, report=shares.append)
    pairs = list(estimate_pairs(model, given))
    assert torch.cat([pair.step_indices for pair in pairs]).tolist() == given.step_indices.tolist()
    torch.testing.assert_close(
        torch.cat([pair.quantized for pair in pairs]), model(given.x, given.timesteps), rtol=0, atol=1e-6
    )
    with model.full_precision():
        expected = model(given.x, given.timesteps)
    torch.testing.assert_close(torch.cat([pair.full_precision for pair in pairs]), expected, rtol=0, atol=1e-6)
    assert sum(shares) == pytest.approx(1.0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_two_rows_make_one_estimate_where_the_denoiser_is_guided(model: QuantModel, batch_size: int) -> None:
    x = data(5).x.repeat_interleave(2, dim=0)
    text = torch.tensor([[1.0], [-1.0]]).repeat(5, 1)
    steps = torch.arange(5).repeat_interleave(2)
    given = CalibrationData(x, 10 - steps, steps, batch_size, lambda done: None, {"text": text}, guidance_scale=3.0)
    pairs = list(estimate_pairs(model, given))
    with_caption, without = model(x, given.timesteps, {"text": text}).unflatten(0, (5, 2)).unbind(1)
    found = torch.cat([pair.quantized for pair in pairs])
    torch.testing.assert_close(found, without + 3 * (with_caption - without), rtol=0, atol=1e-5)
    assert torch.cat([pair.step_indices for pair in pairs]).tolist() == list(range(5))


def test_what_is_not_finite_is_refused(model: QuantModel) -> None:
    broken = data(4)
    broken.x[3, 0] = float("nan")
    with pytest.raises(StageError, match="in full precision is not finite"):
        list(estimate_pairs(model, broken))
    with pytest.raises(StageError, match="no rows"):
        list(estimate_pairs(model, data(0)))
