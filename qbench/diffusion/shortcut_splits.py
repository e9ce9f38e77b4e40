"""Where the concatenated inputs of a UNet's shortcut convolutions divide."""

from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.unets import unet_2d_blocks as blocks
from torch import nn

from qbench.errors import StageError

CONCATENATING_BLOCKS: frozenset[type[nn.Module]] = frozenset(
    {
        blocks.AttnSkipUpBlock2D,
        blocks.AttnUpBlock2D,
        blocks.CrossAttnUpBlock2D,
        blocks.KCrossAttnUpBlock2D,
        blocks.KUpBlock2D,
        blocks.ResnetUpsampleBlock2D,
        blocks.SimpleCrossAttnUpBlock2D,
        blocks.SkipUpBlock2D,
        blocks.UpBlock2D,
    }
)
"""The up blocks that put what comes from below first and the skip second, before resnets of theirs."""


def shortcut_splits(unet: UNet2DModel | UNet2DConditionModel) -> dict[str, int]:
    """Find the shortcut convolutions that read a concatenation, and the channel where its second half begins.

    The halves come from different depths and differ in range, so that one quantizer does not suit both: this is
    what the shortcut splitting of Q-Diffusion (Li et al., ICCV 2023) is about.

    Args:
        unet: as diffusers built it, its layers not yet wrapped.

    Returns:
        For each such convolution, by its name within the UNet, the number of channels from below.

    Raises:
        StageError: an up block is of a type whose concatenations are not known.
    """
    splits = {}
    below = unet.down_blocks[-1] if unet.mid_block is None else unet.mid_block
    width = below.resnets[-1].conv2.out_channels
    for block_index, block in enumerate(unet.up_blocks):
        if type(block) not in CONCATENATING_BLOCKS:
            raise StageError(
                f"where the concatenations in up_blocks.{block_index} divide is not known, as it is a "
                f"{type(block).__name__}"
            )
        for index, resnet in enumerate(block.resnets):
            # A resnet that takes in more channels than come from below gets a skip with them: in most blocks every
            # resnet does, in a K block at most the first.
            if resnet.conv1.in_channels > width and resnet.conv_shortcut is not None:
                splits[f"up_blocks.{block_index}.resnets.{index}.conv_shortcut"] = width
            width = resnet.conv2.out_channels
    return splits
