from typing import Annotated

from pydantic import Field

from qbench.quant.memory_profile import MemoryProfile, profile_of
from qbench.quant.recipes import ActivationRanges, RoundingRecipe, StepSizeRecipe
from qbench.settings import NoSettings, Settings


class Recipes(Settings):
    rounds: Annotated[RoundingRecipe, Field(description="of weights")] = RoundingRecipe(batch_size=3)
    ranges: Annotated[ActivationRanges, Field(description="of activations")] = ActivationRanges(samples=5)
    steps: Annotated[StepSizeRecipe, Field(description="of activations")] = StepSizeRecipe(batch_size=7)


def test_recipes_are_found_by_their_type():
    assert profile_of(Recipes(), "weights") == MemoryProfile(RoundingRecipe(batch_size=3))
    expected = MemoryProfile(StepSizeRecipe(batch_size=7), ActivationRanges(samples=5))
    assert profile_of(Recipes(), "activations") == expected


def test_settings_without_recipes_learn_and_observe_nothing():
    assert profile_of(NoSettings(), "weights") == profile_of(NoSettings(), "activations") == MemoryProfile()
