import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from qbench.errors import SettingsError
from qbench.method import UniformSteps
from qbench.quant.recipes import (
    FAST_RANGE_ROWS,
    FAST_ROUNDING,
    FAST_SAMPLES,
    FAST_STEP_SIZES,
    ActivationRanges,
    RoundingRecipe,
    StepSizeRecipe,
    WeightRanges,
)
from qbench.settings import Settings, describe, validate

RECIPES: dict[type[Settings], dict[str, Any]] = {
    WeightRanges: {"estimator": "min-max", "symmetric": False, "candidates": 80},
    ActivationRanges: {
        "estimator": "min-max",
        "symmetric": False,
        "granularity": "tensor",
        "samples": None,
        "candidates": 80,
        "momentum": 0.95,
        "percent": 99.99,
    },
    RoundingRecipe: {
        "iterations": 20_000,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "regularizer": 0.01,
        "loss": "published",
        "warm_up": 0.2,
        "beta_start": 20.0,
        "beta_end": 2.0,
    },
    StepSizeRecipe: {
        "iterations": 5_000,
        "batch_size": 32,
        "learning_rate": 4e-4,
        "power": 2.4,
        "loss": "published",
        "logarithmic": False,
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_defaults_are_those_of_the_authors_code(recipe: type[Settings]) -> None:
    assert recipe().model_dump() == RECIPES[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_says_what_it_is(recipe: type[Settings]) -> None:
    rows = describe(recipe())
    assert [name for name, *_ in rows] == list(RECIPES[recipe])
    assert all(description for *_, description in rows)


@pytest.mark.parametrize(
    ("recipe", "key", "value"),
    [
        (WeightRanges, "estimator", "percentile"),
        (ActivationRanges, "estimator", "max"),
        (ActivationRanges, "granularity", "channel"),
        (ActivationRanges, "samples", 0),
        (ActivationRanges, "momentum", 1.0),
        (ActivationRanges, "momentum", -0.1),
        (ActivationRanges, "percent", 50.0),
        (ActivationRanges, "percent", 100.1),
        (RoundingRecipe, "iterations", 0),
        (RoundingRecipe, "batch_size", 0),
        (RoundingRecipe, "learning_rate", 0.0),
        (RoundingRecipe, "regularizer", -0.01),
        (RoundingRecipe, "loss", "mse"),
        (RoundingRecipe, "warm_up", 1.0),
        (RoundingRecipe, "beta_start", 1.0),
        (RoundingRecipe, "beta_end", 1.0),
        (RoundingRecipe, "decay", True),
        (StepSizeRecipe, "iterations", 0),
        (StepSizeRecipe, "batch_size", 0),
        (StepSizeRecipe, "learning_rate", 0.0),
        (StepSizeRecipe, "power", 0.9),
        (StepSizeRecipe, "loss", "mse"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(recipe: type[Settings], key: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"^rounding\.{key}: "):
        validate(recipe, {key: value}, lambda location: ".".join(["rounding", *map(str, location)]))


@pytest.mark.parametrize(
    ("recipe", "key", "value"),
    [
        (ActivationRanges, "momentum", 0.0),
        (ActivationRanges, "percent", 100.0),
        (RoundingRecipe, "warm_up", 0.0),
        (RoundingRecipe, "regularizer", 0.0),
        (RoundingRecipe, "iterations", 1),
        (StepSizeRecipe, "power", 1.0),
    ],
)
def test_limits_are_allowed(recipe: type[Settings], key: str, value: Any) -> None:
    assert getattr(validate(recipe, {key: value}, str), key) == value


@pytest.mark.parametrize(
    ("recipe", "fast", "changes", "times_shorter"),
    [
        (
            RoundingRecipe,
            FAST_ROUNDING,
            {"iterations": 250, "batch_size": 16, "learning_rate": 0.24, "regularizer": 400.0, "loss": "relative"},
            80,
        ),
        (
            StepSizeRecipe,
            FAST_STEP_SIZES,
            {"iterations": 50, "learning_rate": 0.001, "loss": "relative", "logarithmic": True},
            100,
        ),
    ],
)
def test_the_fast_ones_are_parts_of_a_recipe(
    recipe: type[Settings], fast: Mapping[str, Any], changes: dict[str, Any], times_shorter: int
) -> None:
    """Their numbers are those that docs/studies settled; the methods' presets only refer to them."""
    found = validate(recipe, fast, str)
    assert found.model_dump() == RECIPES[recipe] | changes
    assert RECIPES[recipe]["iterations"] == times_shorter * found.model_dump()["iterations"]


def test_the_fast_ones_take_a_quarter_of_the_samples() -> None:
    assert FAST_SAMPLES == 64 == UniformSteps().per_step / 4
    assert FAST_RANGE_ROWS == 500 == 25 * UniformSteps().steps


def test_they_load_without_torch() -> None:
    """So that listings stay fast, and methods can be listed where torch is not."""
    code = "import sys, qbench.quant.recipes; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
