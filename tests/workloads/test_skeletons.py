from typing import TYPE_CHECKING

import pytest

from qbench.workloads.configurations import LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1, Family
from qbench.workloads.pipeline_folder import inspect_folder
from qbench.workloads.skeletons import skeleton_of_family, skeleton_of_folder

if TYPE_CHECKING:
    from conftest import Converted


@pytest.mark.parametrize(
    ("family", "millions", "context"),
    [
        (LDM_BEDROOMS, 274.06, {}),
        (LDM_CHURCHES, 294.97, {}),
        (STABLE_DIFFUSION_V1, 859.52, {"encoder_hidden_states": (77, 768)}),
    ],
    ids=lambda value: value.name if isinstance(value, Family) else "",
)
def test_families_have_their_shapes_and_no_values(family: Family, millions: float, context: dict[str, tuple[int, int]]):
    found = skeleton_of_family(family)
    assert sum(each.numel() for each in found.module.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert all(each.is_meta for each in found.module.parameters())
    assert found.context == context
    assert found.structure.segments


def test_heads_that_no_configuration_can_express_are_set():
    module = skeleton_of_family(LDM_CHURCHES).module
    assert {module.get_submodule(f"down_blocks.{level}.attentions.0").heads for level in range(4)} == {8}


def test_a_folder_has_the_shapes_of_what_is_loaded_from_it(converted: "Converted"):
    found, loaded = skeleton_of_folder(inspect_folder(converted.folder)), converted.loaded
    shapes = {name: each.shape for name, each in loaded.denoiser.named_parameters()}
    assert {name: each.shape for name, each in found.module.named_parameters()} == shapes
    heads = {name: getattr(each, "heads", None) for name, each in loaded.denoiser.named_modules()}
    assert {name: getattr(each, "heads", None) for name, each in found.module.named_modules()} == heads
    context = {} if loaded.conditioning is None else loaded.conditioning([""])
    assert found.context == {name: tuple(each.shape[1:]) for name, each in context.items()}
