"""What the core must know of a denoiser's architecture beyond its modules."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """The layout of one denoiser.

    Attributes:
        boundary_layers: names of the first and the last layer on the path of the image, which ``boundary_bits``
            is about. The embedding of the timestep is not on that path.
    """

    boundary_layers: tuple[str, str]


DIFFUSERS_UNET = Structure(boundary_layers=("conv_in", "conv_out"))
"""UNet2DModel and UNet2DConditionModel."""
