"""Estimates against closed forms, and against what calibration itself keeps alive on a CPU."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from diffusers import UNet2DModel
from torch.optim import Adam

from qbench import quant
from qbench.bits import BitWidth
from qbench.diffusion.unet_structure import unet_structure
from qbench.memory.live_bytes import LiveBytes
from qbench.memory.outline import ROUNDING_COPIES, Amount, Moment, Outline
from qbench.quant.data import CalibrationData
from qbench.quant.memory_profile import MemoryProfile
from qbench.quant.model import QuantModel
from qbench.quant.ranges import min_max_per_channel
from qbench.quant.recipes import ActivationRanges, RoundingRecipe, StepSizeRecipe, WeightRanges
from qbench.quant.rounding import SoftRounding
from qbench.workload import Skeleton

SIDE = 8
SHAPE = (3, SIDE, SIDE)
ROWS = Amount(24, 24)
ROUNDING = RoundingRecipe(iterations=2, batch_size=8)
STEP_SIZES = StepSizeRecipe(iterations=2, batch_size=8)


def unet(width: int = 8, levels: int = 1) -> UNet2DModel:
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=tuple(width * 2**level for level in range(levels)),
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    return network.eval().requires_grad_(False)


def outline(width: int = 8, levels: int = 1) -> Outline:
    with torch.device("meta"):
        network = unet(width, levels)
    return Outline(Skeleton(network, unet_structure(network)), SHAPE)


def total(moments: list[Moment]) -> int:
    return max(moment.work + moment.running_state for moment in moments)


def most(moments: list[Moment], what: str) -> int:
    return max(getattr(moment, what) for moment in moments)


class TestClosedForms:
    def test_parameters(self):
        parameters = list(unet().parameters())
        assert outline().parameter_bytes == 4 * sum(each.numel() for each in parameters)
        assert outline().weight_bytes == 4 * sum(each.numel() for each in parameters if each.dim() > 1)

    def test_a_row_of_calibration_data(self):
        with torch.device("meta"):
            network = unet()
        captioned = Outline(Skeleton(network, unet_structure(network), {"encoder_hidden_states": (77, 768)}), SHAPE)
        assert outline().row_bytes == 4 * 3 * SIDE**2 + 8 + 8
        assert captioned.row_bytes - outline().row_bytes == 4 * 77 * 768

    def test_the_running_state_of_full_precision(self):
        """It is most at the attention in the middle: two skips, the tensor before and behind it, the embedding."""
        h, embedding = 4 * 8 * SIDE**2, 4 * 4 * 8
        moments = outline().learning(MemoryProfile(STEP_SIZES), ROWS)
        assert max(moment.running_state for moment in moments) == 24 * (4 * h + embedding)

    def test_the_running_state_of_two_networks(self):
        """The quantized one stands before the attention while the other is before and behind it."""
        h, embedding = 4 * 8 * SIDE**2, 4 * 4 * 8
        moments = outline().learning(MemoryProfile(ROUNDING), ROWS)
        assert max(moment.running_state for moment in moments) == 24 * (7 * h + 2 * embedding)

    def test_the_copies_of_a_weight_whose_rounding_is_learned(self):
        weight = torch.randn(16, 16)
        rounding = SoftRounding(weight, min_max_per_channel(weight, 4))
        optimizer = Adam([rounding.alpha], fused=True)
        for _ in range(2):  # the gradient of before is there until the next one is
            torch.autograd.backward((rounding.weight() ** 2).sum())
            rounding.back_propagate()
            optimizer.step()
        kept = [*vars(rounding).values(), rounding.alpha.grad, *optimizer.state[rounding.alpha].values()]
        copies = {each.data_ptr() for each in kept if isinstance(each, torch.Tensor) and each.shape == weight.shape}
        assert len(copies) == ROUNDING_COPIES + 1  # and the weight itself

    def test_the_grid_of_the_largest_weight(self):
        largest = max(each.numel() for each in unet(8, 2).parameters() if each.dim() > 1)
        assert outline(8, 2).searching().work == 4 * 4 * largest


class TestAgainstCalibration:
    """What the method keeps alive is counted while it works, by the same counter."""

    @staticmethod
    def counted(work: Callable[[QuantModel, CalibrationData], None]) -> int:
        network = unet(16, 2)
        model = QuantModel(network, unet_structure(network), BitWidth(4, 8))
        steps = torch.arange(ROWS.rows) % 4
        data = CalibrationData(torch.randn(ROWS.rows, *SHAPE), steps * 10, steps, ROWS.batch_size, lambda share: None)
        with LiveBytes([*network.parameters(), data.x, data.timesteps, steps]) as live:
            quant.set_weight_grids(model, WeightRanges())
            live.start_over()
            before = live.now
            work(model, data)
        return live.peak - before

    @pytest.mark.parametrize(
        "profile",
        [
            MemoryProfile(ROUNDING),
            MemoryProfile(RoundingRecipe(iterations=2, batch_size=24, loss="relative")),
            MemoryProfile(ROUNDING, granularity="layer"),
            MemoryProfile(ROUNDING, through_network=True),
        ],
        ids=["blocks", "relative", "layers", "fisher"],
    )
    def test_roundings(self, profile: MemoryProfile):
        def work(model: QuantModel, data: CalibrationData) -> None:
            assert isinstance(profile.recipe, RoundingRecipe)
            quant.learn_rounding(model, data, profile.recipe, profile.granularity, profile.through_network)

        assert total(outline(16, 2).learning(profile, ROWS)) == pytest.approx(self.counted(work), rel=0.15)

    @pytest.mark.parametrize("loss", ["published", "relative"])
    def test_step_sizes(self, loss: str):
        recipe = STEP_SIZES.model_copy(update={"loss": loss})
        moments = outline(16, 2).learning(MemoryProfile(recipe), ROWS)

        def work(model: QuantModel, data: CalibrationData) -> None:
            quant.learn_input_grids(model, data, ActivationRanges(samples=4), recipe, "block")

        assert total(moments) == pytest.approx(self.counted(work), rel=0.15)

    @pytest.mark.parametrize("ranges", [ActivationRanges(), ActivationRanges(estimator="mse", candidates=3)])
    def test_ranges(self, ranges: ActivationRanges):
        work = partial(quant.set_input_grids, ranges=ranges)
        assert outline(16, 2).observing(ranges, ROWS).work == pytest.approx(self.counted(work), rel=0.15)


class TestGrowth:
    @pytest.mark.parametrize("recipe", [ROUNDING, STEP_SIZES])
    def test_it_grows_with_width_rows_and_batch(self, recipe: RoundingRecipe | StepSizeRecipe):
        profile = MemoryProfile(recipe)
        one = outline()
        few, many = (one.learning(profile, Amount(rows, 8)) for rows in (24, 48))
        assert total(outline(16).learning(profile, Amount(24, 8))) > total(few)
        assert most(many, "running_state") == 2 * most(few, "running_state")
        assert most(many, "work") == most(few, "work")
        larger = MemoryProfile(recipe.model_copy(update={"batch_size": 16}))
        assert most(one.learning(larger, Amount(24, 8)), "work") > most(few, "work")

    def test_ranges_grow_with_the_batch(self):
        small, large = (outline().observing(ActivationRanges(), Amount(24, size)).work for size in (6, 24))
        assert large == pytest.approx(4 * small, rel=0.01)

    def test_a_range_for_each_token_takes_none(self):
        assert outline().observing(ActivationRanges(granularity="token"), ROWS).work == 0
