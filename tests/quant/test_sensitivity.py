from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.quant import (
    CalibrationData,
    QuantModel,
    RoundingRecipe,
    WeightRanges,
    learn_rounding,
    sensitivity,
    set_weight_grids,
)
from qbench.quant.running_state import Budget
from qbench.quant.sensitivity import block_sensitivities

pytestmark = pytest.mark.usefixtures("one_thread")

PLENTY = 2**30
Models = Callable[..., QuantModel]
Data = Callable[..., CalibrationData]


def found(model: QuantModel, data: CalibrationData) -> dict[str, Tensor]:
    rows = block_sensitivities(model, data, Budget(PLENTY))
    return {name: kept[slice(0, len(data))].clone() for name, kept in rows.items()}


def blocks(model: QuantModel) -> list[str]:
    return [each.name for each in model.structure.segments if each.kind in ("residual", "attention")]


def outputs(unet: Any, names: list[str], run: Callable[[], Any]) -> tuple[dict[str, Tensor], Any]:
    """What some modules put out while something runs, and what it gives."""
    seen: dict[str, Tensor] = {}
    hooks = [
        unet.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name in names
    ]
    result = run()
    for hook in hooks:
        hook.remove()
    return seen, result


def exact(unet: Any, names: list[str], data: CalibrationData) -> dict[str, Tensor]:
    """The sum of squared derivatives of all entries of the denoiser's output, by every block's output, with mean 1."""
    x = data.x.clone().requires_grad_(True)
    seen, result = outputs(unet, names, lambda: unet(x, data.timesteps, **data.context).sample)
    sums = [torch.zeros_like(seen[name]) for name in names]
    for entry in range(result[0].numel()):
        of_entry = result.flatten(1)[:, entry].sum()  # rows do not see each other
        for total, gradient in zip(
            sums, torch.autograd.grad(of_entry, [seen[name] for name in names], retain_graph=True), strict=True
        ):
            total += gradient.square()
    return {name: total.detach() / total.mean() for name, total in zip(names, sums, strict=True)}


def test_it_is_the_diagonal_of_the_fisher_information(
    small_model: Models, small_unet: Callable[..., Any], small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs of a normal distribution of unit variance: its information is J^T J. Draws come near to it."""
    monkeypatch.setattr(sensitivity, "DRAWS", 200)
    model, data = small_model("text"), small_data("text", count=4, side=4)
    wanted = exact(small_unet("text"), blocks(model), data)
    estimate = found(model, data)
    assert estimate.keys() == wanted.keys()
    for name, information in wanted.items():
        assert estimate[name].shape == information.shape
        error = float((estimate[name] - information).abs().mean())
        spread = float((information - 1).abs().mean())
        assert error < 0.15 < 0.4 < spread, name  # of 200 draws 0.08 is expected
        by_row = (estimate[name].flatten(1).mean(1), information.flatten(1).mean(1))
        torch.testing.assert_close(*by_row, rtol=0.25, atol=0)


def test_each_block_has_a_mean_of_1(small_model: Models, small_data: Data) -> None:
    model, data = small_model("text"), small_data("text")
    estimate = found(model, data)
    assert list(estimate) == blocks(model)
    for values in estimate.values():
        assert len(values) == len(data)
        assert float(values.double().mean()) == pytest.approx(1, rel=1e-5)
        assert float(values.min()) >= 0


def test_a_row_does_not_depend_on_its_neighbours(small_model: Models, small_data: Data) -> None:
    model, data = small_model(), small_data(count=4)
    other = small_data(count=4)
    other.x[2:] = 3 * other.x[2:].flip(0)
    before, after = found(model, data), found(model, other)
    for name, values in before.items():
        share = after[name][0].mean() / values[0].mean()  # the mean of all rows is not theirs alone
        torch.testing.assert_close(after[name][:2], values[:2] * share, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(after[name][2:], values[2:] * share, rtol=0.1)


def test_grids_are_of_no_matter_and_nothing_is_left_behind(small_model: Models, small_data: Data) -> None:
    model, data = small_model(bits="W2A32"), small_data()
    model.module.requires_grad_(True)
    model.module.train()
    before = found(model, data)
    set_weight_grids(model, WeightRanges())
    after = found(model, data)
    assert all(torch.equal(after[name], values) for name, values in before.items())
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert all(module.training for module in model.module.modules())
    assert all(tap.enabled for tap in model.taps.values())


def test_the_seed_decides(small_model: Models, small_data: Data) -> None:
    model = small_model()
    first, again, other = (found(model, small_data(seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(again[name], values) for name, values in first.items())
    assert not any(torch.allclose(other[name], values, rtol=0.1) for name, values in first.items())


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_batch_size_does_not_decide(kind: str, small_model: Models, small_data: Data) -> None:
    """Outputs are drawn row by row; no digest knows of the batch size."""
    model = small_model(kind)
    first, *others = (found(model, small_data(kind, batch_size=size)) for size in (10, 4, 1))
    for other in others:
        torch.testing.assert_close(first, other, rtol=1e-3, atol=1e-4)


def test_rows_are_drawn_for_one_by_one(small_model: Models, small_data: Data) -> None:
    """The same input twice: what is drawn for it differs, so its gradients do."""
    model, data = small_model(), small_data(count=4)
    data.x[1:], data.timesteps[1:] = data.x[0], data.timesteps[0]
    for values in found(model, data).values():
        assert all(not torch.allclose(values[0], values[row], rtol=0.1) for row in (1, 2, 3))


def test_what_does_not_fit_goes_to_files(small_model: Models, small_data: Data, tmp_path: Path) -> None:
    model, data, budget = small_model(), small_data(), Budget(0, tmp_path)
    in_files = block_sensitivities(model, data, budget)
    assert budget.used == 0
    assert budget.spilled == sum(4 * kept[slice(0, 10)].numel() for kept in in_files.values())
    assert all(torch.equal(in_files[name][slice(0, 10)], values) for name, values in found(model, data).items())
    del in_files
    assert budget.spilled == 0
    assert list(tmp_path.iterdir()) == []


def first_losses(model: QuantModel, data: CalibrationData, **changes: Any) -> dict[str, float]:
    """The loss of each unit in its first iteration; behind it, the unit is rounded to nearest."""
    losses: dict[str, float] = {}
    recipe = RoundingRecipe(iterations=1, batch_size=len(data), learning_rate=1e-9, **changes.pop("recipe", {}))
    learn_rounding(
        model, data, recipe, "block", listen=lambda name, _, loss: losses.update({name: float(loss)}), **changes
    )
    return losses


def within(grid: Any, weight: Tensor) -> Tensor:
    """What learning starts from: the weight, but no farther out than the grid reaches."""
    low, high = -grid.zero_point * grid.scale, (grid.levels - 1 - grid.zero_point) * grid.scale
    return weight.maximum(low).minimum(high)


@pytest.mark.parametrize("normalization", ["published", "relative"])
def test_it_weighs_the_errors_of_blocks_and_of_nothing_else(
    normalization: str, small_model: Models, small_data: Data
) -> None:
    data = small_data(batch_size=10)
    weights = found(small_model(), data)
    models = {fisher: small_model() for fisher in (False, True)}
    losses = {}
    for fisher, model in models.items():
        set_weight_grids(model, WeightRanges())
        losses[fisher] = first_losses(model, data, fisher=fisher, recipe={"loss": normalization})
    so_far = small_model()

    def run() -> Tensor:
        with torch.no_grad():
            return so_far(data.x, data.timesteps)

    targets, _ = outputs(so_far.module, list(losses[True]), run)
    for name, target in targets.items():
        inside = {each: layer for each, layer in so_far.layers.items() if f"{each}.".startswith(f"{name}.")}
        for each, layer in inside.items():
            layer.learned = within(models[True].layers[each].weight_grid, layer.weight)
        soft = (outputs(so_far.module, [name], run)[0][name] - target).square()
        for each, layer in inside.items():
            layer.learned, layer.weight_grid = None, models[True].layers[each].weight_grid
        hard = (outputs(so_far.module, [name], run)[0][name] - target).square()
        for fisher, weight in ((False, 1.0), (True, weights.get(name, 1.0))):
            divisor = float((hard * weight).mean()) if normalization == "relative" else 1 / target.shape[1]
            assert losses[fisher][name] == pytest.approx(float((soft * weight).mean()) / divisor, rel=1e-3, abs=1e-9)
    differing = [name for name in losses[True] if losses[True][name] != pytest.approx(losses[False][name], rel=1e-2)]
    assert set(differing) <= weights.keys()
    assert len(differing) > 5
