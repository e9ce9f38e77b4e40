"""What a method does with a denoiser, as far as its memory goes. It loads without torch, as planning does."""

from dataclasses import dataclass
from typing import Literal, TypeVar

from qbench.quant.recipes import ActivationRanges, RoundingRecipe, StepSizeRecipe
from qbench.settings import Settings

SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True)
class MemoryProfile:
    """What decides how much memory a method takes for weights or for activations; nothing else rests on it.

    Attributes:
        recipe: how roundings or step sizes are learned; None where nothing is learned.
        ranges: how the ranges of activations are observed; None where they are not.
        granularity: what is learned at a time, as ``learn_rounding`` and ``learn_step_sizes`` have it.
        through_network: whether gradients pass through the whole network, a batch at a time, before anything is
            learned (``fisher`` of ``learn_rounding``).
        hessians: whether the Hessians of all layers' output errors are taken and inverted (``input_hessians``).
    """

    recipe: RoundingRecipe | StepSizeRecipe | None = None
    ranges: ActivationRanges | None = None
    granularity: Literal["block", "layer"] = "block"
    through_network: bool = False
    hessians: bool = False


def profile_of(settings: Settings, target: Literal["weights", "activations", "correction"]) -> MemoryProfile:
    """Return the profile that a method's settings speak of: a recipe among them is one that it follows.

    Args:
        settings: of the method; the first field of each type counts.
        target: what is quantized.
    """
    if target == "weights":
        return MemoryProfile(_first(settings, RoundingRecipe))
    if target == "correction":
        return MemoryProfile()
    return MemoryProfile(_first(settings, StepSizeRecipe), _first(settings, ActivationRanges))


def _first(settings: Settings, kind: type[SettingsT]) -> SettingsT | None:
    values = (getattr(settings, name) for name in type(settings).model_fields)
    return next((value for value in values if isinstance(value, kind)), None)
